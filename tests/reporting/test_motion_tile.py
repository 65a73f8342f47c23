"""What a report's first numbers say of motion: lost, kept, or not sure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svdtrain.reporting.report_choice import motion_tile
from svdtrain.reporting.run_files import RunFiles


def choice(to_base: tuple[float, float], to_clips: tuple[float, float], n: int = 4) -> dict[str, Any]:
    """Value and low end of both ratios, at the strength that was chosen."""
    ratios = {
        name: {"value": value, "low": low, "high": 2 * value, "n": n}
        for name, (value, low) in (("motion", to_base), ("motion_to_clips", to_clips))
    }
    return {"sweep": [{"says": "worse", "motion": {"value": 9}}, {"says": "chosen"} | ratios]}


def evaluation(adapter: float, *findings: str, arm: str = "adapter", n: int = 4) -> dict[str, Any]:
    """Motion of the videos, beside 10 of the base's and 20 of the clips'."""
    arms = {"base": {"value": 10.0}, "held-out clip": {"value": 20.0}, arm: {"value": adapter, "n": n}}
    return {"metrics": {"motion": {"arms": arms}}, "verdicts": {arm: {"findings": list(findings)}}}


@pytest.mark.parametrize(
    ("told", "said", "note"),
    [
        ({"choice": choice((0.9, 0.8), (0.3, 0.2))}, "kept", "90% of the base's, 30% of the clips'"),
        ({"choice": choice((0.3, 0.2), (0.9, 0.8))}, "kept", "30% of the base's, 90% of the clips'"),
        ({"choice": choice((0.9, 0.6), (0.9, 0.6))}, "not sure", "90% of the base's, 90% of the clips'"),
        ({"choice": choice((0.9, 0.8), (0.9, 0.8), n=3)}, "not sure", "90% of the base's, 90% of the clips'"),
        ({"evaluation": evaluation(9)}, "kept", "90% of the base's, 45% of the clips'"),
        ({"evaluation": evaluation(9, n=3)}, "not sure", "90% of the base's, 45% of the clips'"),
        ({"evaluation": evaluation(6)}, "not sure", "60% of the base's, 30% of the clips'"),
        ({"evaluation": evaluation(1, "motion is lost: 90% below")}, "lost", "10% of the base's, 5% of the clips'"),
        ({"evaluation": evaluation(9, arm="a@0.5")}, "kept", "a@0.5: 90% of the base's, 45% of the clips'"),
        (
            {"choice": choice((0.9, 0.6), (0.9, 0.6)), "evaluation": evaluation(1, "motion is lost: 90% below")},
            "not sure",
            "90% of the base's, 90% of the clips'",
        ),
    ],
)
def test_motion_is_kept_where_that_is_sure(told: dict[str, Any], said: str, note: str) -> None:
    tile = motion_tile(RunFiles(Path(), **told))
    assert tile
    assert (tile.value, tile.note) == (said, note)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"choice": {"sweep": [{"says": "chosen"}]}},
        {"evaluation": evaluation(9) | {"metrics": {}}},
        {"evaluation": {"metrics": {"motion": {"arms": {"": {"value": 1}, "base": {"value": 0}}}}}},
    ],
)
def test_nothing_is_said_of_what_is_not_there(told: dict[str, Any]) -> None:
    assert motion_tile(RunFiles(Path(), **told)) is None
