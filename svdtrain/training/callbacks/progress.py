"""The line a user watches: step, loss, steps per second, time left. Plain lines when the output is no terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from svdtrain.acceleration.compiling import CompileClock
from svdtrain.data.loading import ClipLoader
from svdtrain.foundation.energy import EnergyCounter
from svdtrain.foundation.hardware import memory_in_use
from svdtrain.reporting.tables import duration
from svdtrain.training.adapter_norms import norms_of_halves
from svdtrain.training.strategy import FlatReduction, sent_per_step

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from rich.console import Console

    from svdtrain.training.module import FineTuning
    from svdtrain.types import ClipBatch


MEASURED = 5
"""Steps."""


class StepProgress(Callback):
    """Shows progress and logs loss (whole and by noise level), learning rates, norms of gradient and adapter, speed, memory."""

    def __init__(self, console: Console, log_every: int, predicted: float | None = None) -> None:
        self.console, self.log_every = console, log_every
        self.predicted = predicted
        """Seconds of a batch's step, told beside what the first few take."""
        self._first = 0.0
        self.peak = 0
        """Bytes of tensors at the worst moment of the first MEASURED steps; none on a CPU, which keeps no record of it."""
        self.bar: Progress | None = None
        self.compile_clock = CompileClock()
        self.training_seconds = 0.0
        self.began = self.wall = 0.0
        """When training began, with the first looks, and how long it took."""
        self.steps = 0
        self.clips = 0
        self.gathered = self._gathered_before = 0
        """Bytes of the base that this rank has sent to others, in steps."""
        self.energy: EnergyCounter | None = None
        self._settled = 0.0
        """Seconds that the first MEASURED steps took."""
        self.smooth_loss = 0.0

    def setup(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Other callbacks may compile before the first step."""
        self.compile_clock.start()

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """Start the bar where a resumed run stands."""
        self.began, self.energy = time.perf_counter(), EnergyCounter(module.device)
        columns = (TextColumn("fit"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        self.bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self.task = self.bar.add_task("fit", total=trainer.max_steps, completed=trainer.global_step, said="")
        if self.console.is_terminal:
            self.bar.start()
        self.seen_step = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401, ARG002
        """Time between batches belongs to other callbacks, or to waiting for data, which the loader counts."""
        self._gathered_before = module.sharded.bytes_sent if module.sharded else 0
        if self.steps < MEASURED and module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        self.batch_start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: FineTuning,
        outputs: object,  # noqa: ARG002
        batch: ClipBatch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Count, show, and now and then log."""
        self.training_seconds += time.perf_counter() - self.batch_start
        if self.steps < MEASURED and module.device.type == "cuda":  # not of samples, which are not predicted
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(module.device))
        self.clips += len(batch.keys_B) * trainer.world_size
        self.gathered += module.sharded.bytes_sent - self._gathered_before if module.sharded else 0
        step = trainer.global_step
        if step == self.seen_step:
            return
        self.steps += step - self.seen_step
        self.seen_step = step
        if self.steps == MEASURED:
            self._settled = self.training_seconds
        loss = module.last_loss
        self.smooth_loss = loss if self.steps == 1 else 0.95 * self.smooth_loss + 0.05 * loss
        speed = self.steps / self._seconds(trainer)
        self._compare(trainer)
        said = f"loss {self.smooth_loss:.4f}  {speed:.2f} steps/s"
        if self.bar:
            self.bar.update(self.task, completed=step, said=said)
        if step % self.log_every == 0 or step == trainer.max_steps:
            self._log(trainer, module, step, speed)
            if not self.console.is_terminal:
                left = (trainer.max_steps - step) / speed
                self.console.print(f"step {step}/{trainer.max_steps}  {said}  {left:.0f} s left", highlight=False)

    def _compare(self, trainer: pl.Trainer) -> None:
        """After MEASURED steps, and once: what was predicted against what is. The first step warms up."""
        if self.steps == 1:
            self._first = self._seconds(trainer)
        if self.steps != MEASURED or not self.predicted:
            return
        each = (self._seconds(trainer) - self._first) / (MEASURED - 1)
        predicted = self.predicted * trainer.accumulate_grad_batches
        left = duration(each * (trainer.max_steps - trainer.global_step))
        self.console.print(
            f"measured       {each:.2f} s a step (predicted {predicted:.2f}); {left} left", highlight=False
        )

    def _log(self, trainer: pl.Trainer, module: FineTuning, step: int, speed: float) -> None:
        losses = module.losses_by_level()
        if not trainer.is_global_zero:
            return
        if self.energy:
            self.energy.read()
        row = losses | {"steps_per_second": speed, "gradient_norm": module.gradient_norm}
        row |= {f"learning_rate_{g['name']}": float(g["lr"]) for g in trainer.optimizers[0].param_groups}
        row |= {"clips_per_second": self.clips / self._seconds(trainer)} | memory_in_use(module.device)
        norms = norms_of_halves(module.denoiser, module.halves)
        row |= {f"adapter_norm_{half}": norm for half, norm in norms.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step)

    def summary(self, module: FineTuning) -> dict[str, float | None]:
        """Speed, and what shares of it went to waiting for data and to all but the denoiser's forward and backward.

        Beside training are looks at held-out clips, samples and saves.

        The first batch is apart: it is there when the loader's processes have started.
        """
        inside = module.seconds["denoise"] + module.seconds["backward"]
        total, loader = self._seconds(module.trainer), self._loader(module.trainer)
        strategy, ranks = module.trainer.strategy, module.trainer.world_size
        settled = (self.steps - MEASURED) * module.trainer.accumulate_grad_batches
        reduced = strategy.bytes_reduced // max(1, self.steps) if isinstance(strategy, FlatReduction) else 0
        return {
            "steps": self.steps,
            "training_seconds": round(total, 2),
            "first_batch_seconds": round(loader.first_seconds, 2),
            "peak_bytes": self.peak or None,
            "seconds_per_batch": round(total / max(1, self.steps * module.trainer.accumulate_grad_batches), 4),
            "settled_seconds": round((self.training_seconds - self._settled) / settled, 4) if settled > 0 else None,
            "steps_per_second": round(self.steps / total, 3),
            "clips_per_second": round(self.clips / total, 3),
            "share_waiting_for_data": round(loader.waited_seconds / total, 4),
            "share_outside_denoiser": round(1 - inside / total, 4),
            "share_beside_training": round(1 - total / max(total, self.wall), 4),
            "compile_seconds": round(self.compile_clock.seconds, 2),
            "bytes_sent_per_step": sent_per_step(reduced, ranks),
            "energy_joules": round(joules, 1) if (joules := self.energy and self.energy.joules) else None,
            "base_bytes_sent_per_step": self.gathered // max(1, self.steps),
        }

    def _seconds(self, trainer: pl.Trainer) -> float:
        """Of training: in steps, and waiting for their data."""
        return max(1e-9, self.training_seconds + self._loader(trainer).waited_seconds)

    @staticmethod
    def _loader(trainer: pl.Trainer) -> ClipLoader:
        loader = trainer.train_dataloader
        assert isinstance(loader, ClipLoader)
        return loader

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """Leave the terminal as it was."""
        self.wall = time.perf_counter() - self.began
        if self.energy:
            self.energy.read()
        self.compile_clock.close()
        if self.bar:
            self.bar.stop()

    def on_exception(self, *_: Any) -> None:  # noqa: ANN401
        """Likewise when the run breaks."""
        self.compile_clock.close()
        if self.bar:
            self.bar.stop()
