"""Signals to any rank in any phase: all stop at the same step, it is saved, and the exit code says which signal it was.

A slice of the matrix in which every signal, every subset and every phase stands; scripts/soak/signals.py runs it whole.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import save_tiny_dataset
from tests.training.signals import CASES, Case, stop


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("places")
    return save_tiny_svd(root / "model"), save_tiny_dataset(root / "data")


SLICE = [
    Case(signal.SIGUSR1, "alone", "importing"),
    Case(signal.SIGTERM, "first", "loading"),
    Case(signal.SIGTERM, "second", "first look"),
    Case(signal.SIGTERM, "second", "step"),
    Case(signal.SIGUSR1, "both", "validation"),
    Case(signal.SIGINT, "launcher", "sampling"),
    Case(signal.SIGTERM, "first", "save"),
]


@pytest.mark.parametrize("case", SLICE, ids=str)
def test_a_signal_stops_all_ranks_and_saves(places: tuple[Path, Path], tmp_path: Path, case: Case) -> None:
    assert case in CASES
    assert stop(case, *places, tmp_path / "run") == ""
