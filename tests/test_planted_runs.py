"""The table of planted runs: all are found, its page says what was kept, and what is planted is what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from scripts.demo_sets.world import render, scene_of
from scripts.planted_runs import ARM, PAGE, RUNS, Planted, found, kept_runs, with_parts
from scripts.planted_sets import blank, flash, frozen, save_set, sound
from svdtrain.data.shards import index_shard
from svdtrain.evaluation.appearance import thumbnails
from svdtrain.evaluation.metrics import METRICS, Footage
from svdtrain.evaluation.verdict import findings

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.planted_sets import Fault


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_what_was_planted_was_found(run: Planted) -> None:
    row = kept_runs()[run.name]
    assert tuple(row["commands"]) == run.commands, (
        "the script asks for another run: PYTHONPATH=. python scripts/planted_runs.py WORK"
    )
    assert found(run, row["verdicts"][ARM])


def test_the_page_says_what_was_kept() -> None:
    assert PAGE.read_text() == with_parts(PAGE.read_text(), kept_runs()), "PYTHONPATH=. python scripts/planted_runs.py"


VERDICT = {"kind": "improving", "findings": []}
LOST = {"kind": "improving", "findings": ["motion is lost: 90% below"]}


@pytest.mark.parametrize(
    ("kind", "finding", "verdict", "expected"),
    [
        ("improving", "", VERDICT, True),
        ("flat", "", VERDICT, False),
        ("improving", "", LOST, False),
        (None, "motion is lost", LOST, True),
        (None, "motion is lost", VERDICT, False),
        (None, "copies", LOST, False),
        ("flat", "motion is lost", LOST, False),
        (None, "copies", {**LOST, "findings": [*LOST["findings"], "copies training frames"]}, True),
    ],
)
def test_another_verdict_and_findings_where_there_is_no_fault_are_not_found(
    kind: str, finding: str, verdict: dict[str, object], expected: bool
) -> None:
    assert found(Planted("", "", "", (), (), kind, finding), verdict) == expected


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    return [render(scene_of(f"subject/{split}/{number}")) for split in ("held_out", "train") for number in range(4)]


@pytest.mark.parametrize(
    ("fault", "start"),
    [(sound, ""), (flash, ""), (frozen, "motion is lost: 100% "), (blank, "copies training frames: ")],
)
def test_videos_with_the_fault_that_clips_have_are_found(videos: list[np.ndarray], fault: Fault, start: str) -> None:
    """What a perfect pupil of such clips would make of held-out first frames, beside a base that makes what is right."""
    bank_MP = np.concatenate([thumbnails(fault(frames_THWC)) for frames_THWC in videos[4:]])
    arms = {"clips": sound, "base": sound, "adapter": fault}
    tables = {
        name: {
            arm: np.array([_measured(name, made(video), bank_MP) for video in videos[:4]]) for arm, made in arms.items()
        }
        for name in ("motion", "nearest_training_frame")
    }
    said = findings(tables, "adapter", base="base", clips="clips")
    assert bool(said) == bool(start)
    assert not start or [line for line in said if line.startswith(start)]


def _measured(name: str, frames_THWC: np.ndarray, bank_MP: np.ndarray) -> float:
    video = Footage(frames_THWC, 7.0, training_MP=bank_MP)
    number = METRICS[name].measure(video, video)
    assert number is not None
    return number


def test_a_set_is_the_same_each_time(tmp_path: Path) -> None:
    once, again = (save_set("two_clips", tmp_path / name) for name in ("once", "again"))
    for shard in ("train-000000.tar", "held_out-000000.tar"):
        assert (once / shard).read_bytes() == (again / shard).read_bytes()
    clips = index_shard(once / "train-000000.tar")
    assert [clip.key for clip in clips] == ["world-train-0", "world-train-1"]
