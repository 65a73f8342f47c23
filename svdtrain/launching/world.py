"""The ranks that torchrun, srun or our own launcher has started: how many, on how many machines, and which of them this is."""

from __future__ import annotations

import os

from svdtrain.foundation.errors import UsageError
from svdtrain.launching.slurm import first_host


def adopt_slurm() -> None:
    """What srun says of this task, by the names that torchrun uses; nothing where those are set, or for one task alone."""
    told = os.environ
    if "RANK" in told or int(told.get("SLURM_NTASKS", "1")) == 1 or "SLURM_PROCID" not in told:
        return
    for name, theirs in (("RANK", "PROCID"), ("LOCAL_RANK", "LOCALID"), ("WORLD_SIZE", "NTASKS")):
        told[name] = told[f"SLURM_{theirs}"]
    told.setdefault("GROUP_RANK", told.get("SLURM_NODEID", "0"))
    told.setdefault("MASTER_ADDR", first_host(told.get("SLURM_STEP_NODELIST", "127.0.0.1")))
    job, step = (int(told.get(f"SLURM_{name}", "0")) for name in ("JOB_ID", "STEP_ID"))
    told.setdefault("MASTER_PORT", str(20_000 + (job + step) % 20_000))


def refuse_other_world(devices: int, nodes: int) -> None:
    """Raise UsageError where other ranks were started than `devices` on each of `nodes` machines."""
    adopt_slurm()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    machines = _machines(started) or nodes
    if (started, machines) == (devices * nodes, nodes):
        return
    several = nodes > 1 or machines > 1
    seen = f"trainer.devices={devices}" + f" trainer.nodes={nodes}" * several
    on = f" on {machines} machine{'s' * (machines > 1)}" * several
    hint = f"trainer.devices={started // machines}" + f" trainer.nodes={machines}" * several
    if started % machines:
        hint = "as many on each machine"
    raise UsageError(f"{seen}: {started} processes were started{on} (WORLD_SIZE)", hint)


def _machines(started: int) -> int | None:
    """None where the launcher does not say: all variables of torchrun's ranks but these two are set by hand, too."""
    told = os.environ
    if "GROUP_WORLD_SIZE" in told:
        return int(told["GROUP_WORLD_SIZE"])
    if "LOCAL_WORLD_SIZE" in told:
        return max(1, started // int(told["LOCAL_WORLD_SIZE"]))
    if started > 1 and told.get("SLURM_NTASKS") == told["WORLD_SIZE"]:
        named = told.get("SLURM_STEP_NUM_NODES", told.get("SLURM_NNODES"))
        return int(named) if named else None
    return None
