"""The promise of exact resumption, at random instants of real fits, one of them on two ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.selftest import kills


def test_a_fit_that_is_killed_again_and_again_ends_in_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "kill=3", "steps=6", f"out={tmp_path}"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "3 of 3: byte-identical" in said
    assert said.count(" is whole") == 3
    assert not list(tmp_path.glob("killed-*/checkpoints/.staged-*")) or "passed over" in said
    assert main(["selftest", "kill=3", "steps=6", f"out={tmp_path}"]) == 2
    assert f"out={tmp_path}: taken" in capsys.readouterr().err


@pytest.mark.slow
def test_ranks_that_are_killed_end_in_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "kill=1", "steps=4", "ranks=2", f"out={tmp_path / 'new'}"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "a fit of 4 steps on 2 ranks, never killed" in said
    assert "1 of 1: byte-identical" in said


def test_other_bytes_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes with other noise."""
    real = kills.Fits.finish

    def finished(fits: kills.Fits, run_dir: Path) -> None:
        real(fits, run_dir)
        if run_dir.name != "whole":
            adapter = run_dir / kills.ADAPTER
            adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(kills.Fits, "finish", finished)
    monkeypatch.setattr(kills.Fits, "kill", lambda _, run_dir, __: copied(tmp_path, run_dir))
    assert main(["selftest", "kills", "kill=1", "steps=3", f"out={tmp_path}"]) == 6
    assert "0 of 1: byte-identical" in capsys.readouterr().out


def copied(place: Path, run_dir: Path) -> kills.Kill:
    shutil.copytree(place / "whole", run_dir)
    return kills.Kill(1.0, 3, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fault"], "test: 'fault' is not allowed"),
        (["faults", "kills"], "kills: one test at a time"),
        (["faults", "rows=0"], "rows: '0' is not allowed"),
        (["ranks=3"], "ranks: 3 is not allowed"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", *words]) == 2
    assert said in capsys.readouterr().err
