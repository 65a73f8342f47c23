"""A sweep whose jobs are processes of submitit, on this machine; hydra/launcher=submitit_slurm asks sbatch for the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_each_job_of_a_sweep_runs_by_submitit(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["adapter", "targets", "-m", "hydra/launcher=submitit_local"]
    words += ["config=style_lora", "adapter.targets=spatial,temporal"]
    done = subprocess.run(
        [sys.executable, "-m", "svdtrain", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    logs = [log.read_text() for log in tmp_path.glob("runs/sweeps/*/.submitit/*/*_log.out")]
    assert sorted("down_blocks.0  temporal" in log for log in logs) == [False, True], logs
