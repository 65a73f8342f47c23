"""A signal to a run of one process: it stops cleanly, says how to go on, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from svdtrain.training.checkpoint import FolderCheckpoint, checkpoints
from tests.tiny_runs import fit_words
from tests.training.test_resume import ADAPTER, LOOKS, ran, record_of


@pytest.mark.parametrize(("number", "early"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_stops_saves_and_says_how_to_go_on(
    model: Path, dataset: Path, tmp_path: Path, number: signal.Signals, early: bool
) -> None:
    """Early: while the base makes its first videos, before any step. As from a terminal or a cluster, workers get it too."""
    run = tmp_path / "run"
    steps = "validation.sampling_steps=20" if early else "validation.sampling_steps=1"
    words = [
        *LOOKS,
        "trainer.max_steps=100000",
        "trainer.save_every=100000",
        "trainer.log_every=1",
        steps,
        "data.workers=1",
    ]
    words = [word for word in words if not word.startswith("validation.every")]
    command = [sys.executable, "-m", "svdtrain", "fit", *fit_words(model, dataset, *words, f"run_dir={run}")]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), start_new_session=True
    )
    assert child.stdout is not None
    awaited = "run folder" if early else "step 2/"
    said = ""
    while awaited not in said:
        line = child.stdout.readline()
        assert line, child.communicate()[1]
        said += line
    if early:
        while not (run / "metrics.jsonl").exists():
            assert child.poll() is None
    os.killpg(child.pid, number)
    rest, errors = child.communicate(timeout=300)
    assert child.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert f"resume={run}" in rest
    [checkpoint] = checkpoints(run)
    record = record_of(run)
    assert record["state"] == "stopped"
    step = int(checkpoint.name.removeprefix("step-"))
    assert record["step"] == step
    assert (step == 1) if early else (step >= 2)
    assert (run / ADAPTER).is_file()
    assert ran(model, dataset, *words, f"resume={run}", f"trainer.max_steps={step + 1}") == 0
    assert record_of(run)["step"] == step + 1


def test_a_signal_in_the_last_step_stops_nothing(
    model: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = FolderCheckpoint.save_checkpoint

    def signalled(*given: Any, **named: Any) -> None:  # noqa: ANN401
        os.kill(os.getpid(), signal.SIGTERM)
        save(*given, **named)

    monkeypatch.setattr(FolderCheckpoint, "save_checkpoint", signalled)
    assert ran(model, dataset, f"run_dir={tmp_path / 'run'}") == 0
    assert record_of(tmp_path / "run")["state"] == "done"


def test_handlers_are_given_back(model: Path, dataset: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert ran(model, dataset, f"run_dir={tmp_path / 'run'}") == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
