"""How a fit trains, looks and saves: the keys trainer.… and validation.…"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from svdtrain.config.fields import Level, Positive, Share, Strict


class TrainerConfig(Strict):
    """How long, on what, and how often to look."""

    max_steps: Positive
    accumulate: Positive
    """Batches per optimizer step."""
    precision: Annotated[Literal["auto", "32", "bf16-mixed", "16-mixed"], BeforeValidator(str)]
    """auto: bf16-mixed on a GPU that has it, 16-mixed on one that has not, 32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"]
    devices: Positive
    """Of each machine."""
    nodes: Positive = 1
    """Machines, on each of which torchrun or srun starts as many processes as there are devices."""
    condition_dropout: Share
    save_every: Positive
    keep_checkpoints: Positive
    keep_adapters: bool = False
    """Also keep the adapter of every save, in RUN/adapters/step-NNNNNN: what `adapter average` averages."""
    keep_best: bool = True
    """Also keep the checkpoint with the least held-out loss, however old it is, and RUN/adapter_best, that of the best look."""
    stop_early: Positive | None = None
    """Looks (validation.every) in a row that are no better than the best before them: then the run ends. null: never."""
    log_every: Positive
    report: bool = True
    """A run that is whole ends with RUN/report.html."""
    on_nonfinite: Literal["raise", "skip"] = "raise"
    """A loss or gradient that is not finite ends the run before its step, or that step is left out."""
    max_skipped: Annotated[int, Field(ge=1, le=100)] = 5
    """Of any 100 steps: one more ends the run."""
    compare_every: Positive = 100
    """Optimizer steps after which ranks compare their weights; they do before each save, too."""
    watchdog: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = 600
    """Seconds without progress after which the run ends with exit code 75 and names who holds it up; null: never."""
    requeue: bool = False
    """Under Slurm: after SIGUSR1 (sbatch --signal=USR1@120) the job is queued again when all is saved. Needs run_dir."""

    @property
    def ranks(self) -> int:
        """Of all machines."""
        return self.devices * self.nodes


class ValidationConfig(Strict):
    """Fixed noise on a fixed grid of noise levels, on held-out clips; and sample videos at fixed seeds."""

    every: Positive
    clips: Positive
    training_clips: Annotated[int, Field(ge=0)] = 4
    """Likewise of these: a loss that falls there alone is over-fitting."""
    generic: str | None = None
    """A dataset of anything else: a loss that rises there is forgetting."""
    generic_clips: Positive = 8
    sigmas: Annotated[list[Level], Field(min_length=1)]
    sample_every: Positive
    sample_inputs: Annotated[int, Field(ge=0)]
    sample_seed: int
    sampling_steps: Positive
