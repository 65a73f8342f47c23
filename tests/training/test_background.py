"""A tracker on its thread: all in order, and however it fails, training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from svdtrain.training.trackers.background import BackgroundLogger
from svdtrain.training.trackers.tracker import Look, SavedAdapter, Tracker


class Kind(Tracker):
    """Notes what it is told; `slow` stands still until it is let go, `dies` fails at the second number."""

    def __init__(self, kind: str) -> None:
        self.kind, self.told, self.let_go = kind, list[str](), threading.Event()

    def start(self, settings: Mapping[str, Any]) -> None:
        self.told.append(f"start {dict(settings)}")

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        if self.kind == "slow":
            self.let_go.wait(60)
        if self.kind == "dies" and step == 2:
            raise ConnectionResetError("Connection lost\nand more")
        self.told.append(f"{step} {row['loss']:g}")

    def end(self, state: str, looks: Sequence[Look]) -> None:
        self.told.append(f"{state} {len(looks)}")


def test_all_is_told_in_order_and_the_end_is_waited_for() -> None:
    tracker = Kind("quick")
    logger = BackgroundLogger(tracker, patience=20)
    logger.tell("start", {"seed": 1})
    for step in range(200):
        logger.log_metrics({"loss": 0.5}, step)
    logger.close("done", [])
    assert tracker.told == ["start {'seed': 1}", *[f"{step} 0.5" for step in range(200)], "done 0"]


def test_one_that_dies_is_told_once_and_asked_no_more(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    tracker = Kind("dies")
    logger = BackgroundLogger(tracker, patience=20)
    (tmp_path / "copy").mkdir()
    for step in range(4):
        logger.log_metrics({"loss": 1.0}, step)
    logger.tell("saved", SavedAdapter(tmp_path / "copy", 3, is_best=False))
    logger.close("done", [])
    assert tracker.told == ["0 1", "1 1"]
    assert [one.getMessage() for one in caplog.records] == ["logger=dies is left alone from here on: Connection lost"]


def test_one_that_hangs_never_stops_training(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Kind("slow")
    logger = BackgroundLogger(tracker, patience=0.2, most=5)
    started = time.monotonic()
    for step in range(100):
        logger.log_metrics({"loss": 1.0}, step)
    assert time.monotonic() - started < 1
    logger.close("done", [])
    assert time.monotonic() - started < 5
    tracker.let_go.set()
    assert logger.dropped >= 90
    assert [one.getMessage() for one in caplog.records] == [
        "logger=slow is too slow: what it has no room for is dropped",
        "logger=slow is left alone: 0.2 s after the end it has not taken all",
    ]
