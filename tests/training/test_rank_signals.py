"""Signals to any of two ranks: both stop at the same step, it is saved, and the exit code says which signal it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svdtrain.training.checkpoint import checkpoints, fault_of, step_of
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("places")
    return save_tiny_svd(root / "model"), save_tiny_dataset(root / "data")


def second_rank(pid: int) -> int:
    """The child that Lightning started as the other rank."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (other,) = [int(one) for one in found if b"LOCAL_RANK=1" in Path(f"/proc/{one}/environ").read_bytes().split(b"\0")]
    return other


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        *((signal.SIGTERM, whom) for whom in ("first", "second", "group")),
        (signal.SIGUSR1, "second"),
        (signal.SIGINT, "group"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_to_any_rank_stops_all_and_saves(
    places: tuple[Path, Path], tmp_path: Path, number: signal.Signals, whom: str
) -> None:
    run = tmp_path / "run"
    words = ["trainer.devices=2", "data.batch_size=1", "trainer.max_steps=100000", "trainer.save_every=100000"]
    command = [sys.executable, "-m", "svdtrain", "fit", *fit_words(*places, *words, f"run_dir={run}")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert child.stdout
    said = ""
    while "step 3/" not in said:
        line = child.stdout.readline()
        assert line, child.communicate()[1]
        said += line
    other = second_rank(child.pid)
    if whom == "group":
        os.killpg(child.pid, number)
    else:
        os.kill(child.pid if whom == "first" else other, number)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == CODES[number], errors
    assert "Traceback" not in errors
    [checkpoint] = checkpoints(run)
    assert fault_of(checkpoint) == ""
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("stopped", step_of(checkpoint))
