"""Advice: each fault of a dataset is told once, with its mend, and a good dataset is told nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from svdtrain.data.clip import Clip, Shard
from svdtrain.foundation.errors import DataError
from svdtrain.preparation.advice import Wanted, advise, scale_and_loss
from svdtrain.preparation.survey import Row, Survey

WANTED = Wanted(frames=8, height=64, width=64, fps=8.0, motion_bucket=None, batch_size=4)
GOOD: dict[str, Any] = {
    "size": (64, 64),
    "frames": 16,
    "fps": 8.0,
    "motion_bucket_id": 127.0,
    "verified": True,
    "sha256": "",
}


def row(number: int, **changes: Any) -> Row:  # noqa: ANN401
    place = Clip(f"c{number:02d}", Shard(Path("a.tar")), 0, 1, f"v{number}")
    split = "held_out" if number > 24 else "train"
    values: dict[str, Any] = {"key": place.key, "source": place.source, "place": place, "split": split}
    return Row(**(values | GOOD | changes))


def survey(changes: dict[int, dict[str, Any]] | None = None, **fields: Any) -> Survey:  # noqa: ANN401
    """Thirty good clips, some changed: {number: changes}; -1: all."""
    changes = changes or {}
    rows = [row(number, **(changes.get(-1, {}) | changes.get(number, {}))) for number in range(30)]
    return Survey("dataset", "data", tuple(rows), **fields)


CASES: dict[str, tuple[Survey, dict[str, Any], bool, str]] = {
    "unverified": (survey({3: {"verified": False}}), {}, False, "1 of 30 clips are not verified"),
    "unreadable": (survey(refused=(("x", DataError("x is torn")),)), {}, True, "1 clip cannot be read. x is torn"),
    "one without caption": (
        survey({-1: {"caption": "a"}, 4: {"caption": None}}),
        {},
        False,
        "1 of 30 have no caption, the first is c04",
    ),
    "few": (Survey("dataset", "d", tuple(row(n) for n in range(7))), {}, False, "Only 7 clips to train on"),
    "one video": (survey({-1: {"source": "v"}}), {}, False, "All clips come from one video"),
    "stills": (survey({5: {"still": True, "frames": 1}}), {}, False, "1 still not trained on"),
    "no buckets": (survey({n: {"bucket": (64, 64, 8)} for n in range(9)}), {}, False, "The dataset was prepared for bu"),
    "a small bucket": (
        survey({-1: {"bucket": (64, 64, 8)}, 2: {"bucket": (64, 128, 8), "size": (64, 128)}}),
        {"buckets": True},
        False,
        "Only 1 clip of 128×64×8, a batch takes 4",
    ),
    "equal across the split": (
        survey({1: {"sha256": "a"}, 29: {"sha256": "a"}}),
        {},
        True,
        "1 group of clips that are equal, on both sides",
    ),
    "equal in training": (survey({1: {"sha256": "a"}, 2: {"sha256": "a"}}), {}, False, "1 group of clips that are equal: "),
    "mixed rates": (survey({1: {"fps": 10.0, "frames": 40}}), {"fps": None}, False, "Clips have 2 frame rates, 8 to 10 fps"),
    "too slow": (survey({1: {"fps": 5.0}, 2: {"fps": 4.0}}), {}, True, "2 clips of fewer fps than the 8 asked for: c01 …"),
    "too short": (survey({6: {"frames": 7}}), {}, True, "1 clip shorter than 8 frames at 8 fps: c06"),
    "too short at this rate": (survey({6: {"frames": 16, "fps": 24.0}}), {}, True, "1 clip shorter than 8 frames at 8"),
    "enlarged": (survey({1: {"size": (32, 40)}}), {}, False, "1 of 30 are smaller than the model's pictures, by up to 2.0"),
    "cropped": (survey({1: {"size": (100, 200)}}), {}, False, "1 of 30 lose more than 25% of their picture"),
    "no motion": (survey({1: {"motion_bucket_id": None}}), {}, False, "1 of 30 clips have no motion bucket id"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_told_once_with_its_mend(case: str) -> None:
    found, wanted, serious, said = CASES[case]
    told = advise(found, replace(WANTED, **wanted), [], None)
    assert [(advice.serious, advice.fault[: len(said)]) for advice in told] == [(serious, said)]
    assert told[0].mend


def test_a_good_dataset_is_told_nothing() -> None:
    assert advise(survey(), WANTED, [], None) == ()


def test_what_stops_training_comes_first() -> None:
    found = survey({3: {"verified": False}})
    told = advise(found, WANTED, [["c01", "c02"], ["c03", "c29"]], DataError("no clip fits", "take fewer frames"))
    assert [advice.serious for advice in told] == [True, True, False]
    assert (told[0].fault, told[0].mend) == ("Training would stop: no clip fits", "take fewer frames")
    assert told[1].fault.startswith("1 group of clips that are near duplicates, on both sides")


@pytest.mark.parametrize(
    ("size", "bucket", "expected"),
    [
        ((64, 64), None, (1.0, 0.0)),
        ((32, 64), None, (2.0, 0.5)),
        ((128, 64), None, (1.0, 0.5)),
        ((128, 256), (64, 128, 8), (0.5, 0.0)),
        (None, None, None),
    ],
)
def test_scale_and_crop(size: tuple[int, int] | None, bucket: Any, expected: tuple[float, float] | None) -> None:  # noqa: ANN401
    fit = scale_and_loss(row(0, size=size, bucket=bucket), replace(WANTED, buckets=True))
    assert fit == (pytest.approx(expected) if expected else None)
