"""Checkpoints and the adapter, every few optimizer steps, at the end, and where a run is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

from svdtrain.training.checkpoint import checkpoints, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytorch_lightning as pl

    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning


class SaveCheckpoints(Callback):
    """RUN/checkpoints/step-000500, the newest few and the best; beside each save the result itself by `write_result`."""

    def __init__(
        self,
        run_dir: Path,
        every: int,
        keep: int,
        ratios: Mapping[int, float] | None,
        average: WeightAverage,
        write_result: Callable[[int], None],
    ) -> None:
        self.run_dir, self.every, self.keep, self.ratios = run_dir, every, keep, ratios
        self.average, self.write_result = average, write_result
        self.saved_step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """Only at optimizer steps: a partial accumulation is never cut."""
        step = trainer.global_step
        if step != self.saved_step and (step % self.every == 0 or step == trainer.max_steps or trainer.should_stop):
            self.saved_step = step
            with self.average.applied(module):
                if trainer.is_global_zero:
                    self.write_result(step)  # first: a run that is killed between the two does these steps again
            trainer.save_checkpoint(self.run_dir / "checkpoints" / f"step-{step:06d}")
            older = checkpoints(self.run_dir)[: -self.keep]
            for old in older:
                if old != self.best():
                    trainer.strategy.remove_checkpoint(old)

    def best(self) -> Path | None:
        """Of the checkpoints that are there, the one with the least held-out loss by `ratios`; None where none was judged."""
        ratios = self.ratios or {}
        judged = [one for one in checkpoints(self.run_dir) if step_of(one) in ratios]
        return min(judged, key=lambda one: ratios[step_of(one)], default=None)

    def state_dict(self) -> dict[str, Any]:
        """The step of this very save."""
        return {"saved_step": self.saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored on resume."""
        self.saved_step = state_dict["saved_step"]
