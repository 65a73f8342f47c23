"""Slurm: its list of machines; a job that is preempted or out of time is queued again once all is saved, by the first rank."""

from __future__ import annotations

import os
import re
import subprocess

from svdtrain.foundation.errors import SystemFault


def first_host(nodes: str) -> str:
    """The first of Slurm's list of machines: of `gpu[07-09,12],login`, gpu07."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else nodes)


def queue_again() -> str:
    """Ask for this very job once more; its number. Raises SystemFault where that fails."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    if not job:
        raise SystemFault("trainer.requeue=true: this is no Slurm job (SLURM_JOB_ID is not set)", "leave it out")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemFault(f"scontrol requeue {job}: {error}", "sbatch --requeue lets Slurm do it") from error
    if done.returncode:
        raise SystemFault(f"scontrol requeue {job}: {done.stderr.strip()}", "sbatch --requeue lets Slurm do it")
    return job
