"""Planted histories, and what the verdict says of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from svdtrain.evaluation.verdict import FEWEST, MOTION_KEPT, LossHistory, findings, judged
from svdtrain.evaluation.work import CLIP
from svdtrain.reporting import report_choice

Ratios = tuple[float, ...]

STEPS = (0, 50, 100, 150)
DOWN, FLAT, UP = (1, 0.9, 0.8, 0.7), (1, 1.0, 1.0, 1.0), (1, 1.05, 1.1, 1.15)
TURNS, LEVELS = (1, 0.8, 0.85, 0.95), (1, 0.8, 0.8, 0.8)
MEMORISED = (1, 0.5, 0.3, 0.2)


def losses(ratios: Ratios | None, clips: int = 8, noise: float = 0.01, seed: int = 0) -> Any:  # noqa: ANN401
    """[K, N, S]: clips that differ tenfold, ratios that differ by clip a little."""
    if ratios is None:
        return None
    random = np.random.default_rng(seed)
    base_NS = random.lognormal(-2, 1, (clips, 1)) * np.array([1.0, 0.3, 2.0])
    spread_KNS = random.normal(1, noise, (len(ratios), clips, 3))
    spread_KNS[0] = 1
    return np.array(ratios)[:, None, None] * base_NS * spread_KNS


@pytest.mark.parametrize(
    ("held_out", "training", "generic", "kind", "best", "words"),
    [
        (DOWN, DOWN, None, "improving", 150, "below the base's, and still fell at step 150"),
        (DOWN, None, None, "improving", 150, "still fell"),
        (DOWN, DOWN, FLAT, "improving", 150, "still fell"),
        (LEVELS, DOWN, None, "improving", None, "has not moved since step 100"),
        (FLAT, FLAT, FLAT, "flat", None, "flat: held-out loss is 0%"),
        (
            TURNS,
            MEMORISED,
            None,
            "over-fitting",
            50,
            "since step 50: held-out loss is 18% (",
        ),
        (TURNS, MEMORISED, None, "over-fitting", 50, "while that of training clips fell"),
        (TURNS, None, None, "over-fitting", 50, "since step 50"),
        (UP, MEMORISED, None, "over-fitting", 0, "since step 0"),
        (FLAT, MEMORISED, None, "over-fitting", None, "on training clips, and not on held-out ones"),
        (UP, UP, None, "worse", 0, "worse: held-out loss is 15% (14% to 15%) above the base's"),
        (DOWN, DOWN, UP, "forgetting", 150, "generic clips is 15%"),
        (DOWN, DOWN, UP, "forgetting", 150, "besides improving: held-out loss is 30%"),
        (TURNS, MEMORISED, UP, "forgetting", 50, "besides over-fitting since step 50"),
        (DOWN, DOWN, (1, 1.01, 1.02, 1.03), "improving", 150, "below"),
    ],
)
def test_a_planted_history_is_judged(
    held_out: Ratios,
    training: Ratios | None,
    generic: Ratios | None,
    kind: str,
    best: int | None,
    words: str,
) -> None:
    said = judged(LossHistory(STEPS, losses(held_out), losses(training, seed=1), losses(generic, seed=2)))
    assert said.kind == kind
    assert words in said.sentence
    assert best in (None, said.best_step)


@pytest.mark.parametrize(("ratio", "kind"), [(0.7, "improving"), (1.0, "flat"), (1.2, "worse")])
def test_one_look_beside_the_base_is_enough(ratio: float, kind: str) -> None:
    said = judged(LossHistory((0, 120), losses((1, ratio))))
    assert said.kind == kind
    assert "step" not in said.sentence


def test_what_is_not_sure_is_not_said() -> None:
    assert judged(LossHistory((0, 120), losses((1, 0.9), noise=0.4))).kind == "flat"
    assert judged(LossHistory((0, 120), losses((1, 0.5), clips=2))).kind == "unknown"
    assert judged(LossHistory((0,), losses((1,)))).kind == "unknown"


SAME, HALF, TENTH = np.array([4.0, 5, 6, 8, 3]), np.array([2.0, 2.4, 3.1, 4, 1.6]), np.array([0.4, 0.5, 0.6, 0.9, 0.2])


@pytest.mark.parametrize(
    ("motion", "copies", "words"),
    [
        ((SAME, SAME, SAME), (SAME, SAME, SAME), []),
        ((SAME, SAME, TENTH), (SAME, SAME, SAME), ["motion is lost: 90% "]),
        ((SAME, HALF, TENTH), (SAME, SAME, SAME), ["below the base's"]),
        ((TENTH, SAME, TENTH), (SAME, SAME, SAME), []),  # as calm as the clips
        ((SAME, TENTH, TENTH), (SAME, SAME, SAME), []),  # the base moves no more
        ((SAME, SAME, SAME), (SAME, SAME, TENTH), ["copies training frames: the nearest is 90% "]),
        ((SAME, SAME, SAME), (SAME, TENTH, TENTH), []),  # so does the base
        ((SAME, SAME, TENTH), (SAME, SAME, TENTH), ["motion is lost", "copies"]),
        ((SAME[:3], SAME[:3], TENTH[:3]), (SAME, SAME, SAME), []),  # too few to say
    ],
)
def test_videos_show_lost_motion_and_copies(
    motion: tuple[np.ndarray, ...], copies: tuple[np.ndarray, ...], words: list[str]
) -> None:
    names = ("clips", "base", "adapter")
    tables: dict[str, dict[str, np.ndarray]] = {
        "motion": dict(zip(names, motion, strict=True)),
        "nearest_training_frame": dict(zip(names, copies, strict=True)),
    }
    said = findings(tables, "adapter", base="base", clips="clips")
    assert len(said) == len(words)
    assert [word for word, line in zip(words, said, strict=True) if word not in line] == []
    assert findings({}, "adapter", base="base", clips="clips") == []


def test_a_report_says_of_motion_what_a_verdict_would() -> None:
    """It stands on a lower layer, and cannot ask for them."""
    assert (report_choice.KEPT, report_choice.FEWEST, report_choice.CLIP) == (MOTION_KEPT, FEWEST, CLIP)
