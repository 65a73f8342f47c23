"""`python -m svdtrain fit`: in this process, or as several ranks and under supervision in processes of their own."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.garbage import uncollected
from svdtrain.launching.launcher import Launcher
from svdtrain.launching.notice import Notice
from svdtrain.launching.pulse import BEATS_VARIABLE
from svdtrain.launching.world import refuse_other_world

if TYPE_CHECKING:
    from svdtrain.config.schema import FitConfig


def run(config: FitConfig, overrides: list[str]) -> int:
    """The exit code. torch is imported only by the processes that train."""
    trainer = config.trainer
    others = any(int(os.environ.get(name, "1")) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    if BEATS_VARIABLE in os.environ or others or (trainer.ranks == 1 and not config.supervise):
        refuse_other_world(trainer.devices, trainer.nodes)
        with Notice().heard():  # torch takes seconds
            with uncollected(stays=True):
                from svdtrain.commands import fit

            return fit.run(config, overrides)
    if trainer.nodes > 1:
        raise UsageError(
            f"trainer.nodes={trainer.nodes}: no launcher has started the processes of these machines",
            f"torchrun --nnodes={trainer.nodes} --nproc-per-node={trainer.devices} … -m svdtrain fit … on each, or srun",
        )
    job = {"command": "fit", "config": config.model_dump(mode="json"), "overrides": overrides}
    command = [sys.executable, "-m", "svdtrain", *["--debug"] * ("--debug" in sys.argv), "--job"]
    return Launcher(command, job, trainer.devices, trainer.watchdog).run(config.supervise)
