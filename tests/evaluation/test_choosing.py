"""Planted findings, and which step and strength are chosen of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.config.strengths import Strength, even
from svdtrain.evaluation.choosing import around, candidates, chosen, loses_motion, ranked
from tests.evaluation.planted_results import Shown, found

Sweep = dict[float, Shown]


@pytest.mark.parametrize(
    ("sweep", "clips", "best", "against"),
    [
        ({0.5: Shown(0.9), 1: Shown(0.8), 1.5: Shown(0.7)}, 8, 1.5, ""),
        ({0.5: Shown(0.9), 1: Shown(0.803), 1.5: Shown(0.8)}, 8, 1, ""),  # sure, and hardly anything
        ({0.5: Shown(0.8, noise=0.1), 1: Shown(0.82, noise=0.1), 1.5: Shown(0.9)}, 8, 1, ""),  # not sure
        ({0.5: Shown(0.7), 0.75: Shown(0.702), 1: Shown(0.8)}, 8, 0.75, ""),  # the nearest of two that are not 1
        ({0.5: Shown(0.9), 1: Shown(0.8, motion=0.3), 1.5: Shown(0.7, motion=0.1)}, 8, 0.5, "motion is lost: 70%"),
        ({1: Shown(0.8), 1.5: Shown(0.7, copies=0.1)}, 8, 1, "copies training frames: the nearest is 90%"),
        ({1: Shown(0.8), 1.5: Shown(0.7, generic=1.2)}, 8, 1, "forgetting: loss on generic clips is 20%"),
        ({1: Shown(1.2), 1.5: Shown(1.4)}, 8, 0, ""),
        ({1: Shown(1.005), 1.5: Shown(1.4)}, 8, 1, ""),
        ({1: Shown(0.9), 1.5: Shown(0.5)}, 3, 1, ""),  # three clips tell nothing apart
    ],
)
def test_a_strength_is_chosen(sweep: Sweep, clips: int, best: float, against: str, tmp_path: Path) -> None:
    shown = {f"adapter@{s:g}": one for s, one in sweep.items()}
    for s, one in sweep.items():
        one.strength = even(s)
    told = candidates(*found(tmp_path, shown, clips=clips))
    choice = chosen(told)
    assert choice.best is not None
    assert choice.best.strength == even(best)
    assert choice.best in choice.ties
    assert choice.least is min((one for one in told if not one.against), key=lambda one: one.held_out.value)
    said = "".join(line for one in told for line in one.against)
    assert (against in said) if against else not said


def test_where_all_lose_motion_none_is_chosen(tmp_path: Path) -> None:
    seen, arms = found(tmp_path, {"adapter": Shown(0.5, motion=0.2)})
    assert chosen(candidates(seen, arms[1:])).best is None


def test_steps_are_ranked_and_those_that_lose_motion_are_known(tmp_path: Path) -> None:
    shown = {"a": Shown(0.8, step=10), "b": Shown(0.6, motion=0.2, step=20), "c": Shown(0.7, step=30)}
    seen, (_, *arms) = found(tmp_path, shown)
    assert [one.arm.step for one in ranked(seen, arms)] == [20, 30, 10]
    assert [arm.label for arm in arms if loses_motion(seen, arm)] == ["b"]
    few, (_, *arms) = found(tmp_path / "few", shown, inputs=3)
    assert not any(loses_motion(few, arm) for arm in arms), "three videos say nothing"


SWEPT = [even(one) for one in (0, 0.5, 1, 1.5)]


@pytest.mark.parametrize(
    ("best", "swept", "grid"),
    [
        (even(1), SWEPT, "0.5/1 0.5/1.5 1/0.5 1/1.5 1.5/0.5 1.5/1"),
        (even(0), SWEPT, "0/0.5 0.5/0"),
        (even(1.5), SWEPT, "1/1.5 1.5/1"),
        (Strength(0.5, 1), [Strength(0.5, 1)], "0.5 1/0.5 1"),
    ],
)
def test_halves_are_tried_around_the_best(best: Strength, swept: list[Strength], grid: str) -> None:
    assert " ".join(map(str, around(best, swept))) == grid
