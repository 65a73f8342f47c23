"""The promise of exact resumption, at random instants of a real fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.commands import selftest


def test_a_fit_that_is_killed_again_and_again_ends_in_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "kill=2", "steps=6", f"out={tmp_path}"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "2 of 2: byte-identical" in said
    assert said.count(" is whole") == 2
    assert not list(tmp_path.glob("killed-*/checkpoints/.staged-*")) or "passed over" in said


def test_other_bytes_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes with other noise."""
    real = selftest._finished

    def finished(run_dir: Path, steps: int) -> None:
        real(run_dir, steps)
        if run_dir.name != "whole":
            adapter = run_dir / selftest.ADAPTER
            adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(selftest, "_finished", finished)
    monkeypatch.setattr(selftest, "_kill", lambda run_dir, *_: copied(tmp_path, run_dir))
    assert main(["selftest", "kill=1", "steps=3", f"out={tmp_path}"]) == 6
    assert "0 of 1: byte-identical" in capsys.readouterr().out


def copied(place: Path, run_dir: Path) -> selftest.Kill:
    shutil.copytree(place / "whole", run_dir)
    return selftest.Kill(1.0, 3, 0)
