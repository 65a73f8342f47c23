"""Checkpoints and the adapter, every few optimizer steps, at the end, and where a run is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytorch_lightning.callbacks import Callback

from svdtrain.training.checkpoint import checkpoints, step_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import pytorch_lightning as pl

    from svdtrain.reporting.run_events import RunEvents
    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning


class WriteResult(Protocol):
    """Writes what the run is for."""

    def __call__(self, step: int, *, best: bool = False) -> None:
        """best: as that of the best step so far, beside the newest."""


class SaveCheckpoints(Callback):
    """RUN/checkpoints/step-000500, the newest few and the best; beside each save the result itself by `write_result`.

    That of the best look so far is also written whenever there is one: `write_result(step, best=True)`.
    """

    def __init__(
        self,
        run_dir: Path,
        every: int,
        keep: int,
        ratios: Mapping[int, float] | None,
        average: WeightAverage,
        wanted: Collection[str],
        events: RunEvents,
        write_result: WriteResult,
    ) -> None:
        self.run_dir, self.every, self.keep, self.ratios = run_dir, every, keep, ratios
        self.average, self.wanted, self.events, self.write_result = average, wanted, events, write_result
        self.saved_step = self.best_step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """Only at optimizer steps: a partial accumulation is never cut."""
        step = trainer.global_step
        if self._is_best(step):
            self.best_step = step
            if trainer.is_global_zero:
                with self.average.applied(module):
                    self.write_result(step, best=True)
                self.events.add("best", step)
        due = step % self.every == 0 or step == trainer.max_steps or trainer.should_stop or "save" in self.wanted
        if step != self.saved_step and due:
            self.saved_step = step
            with self.average.applied(module):
                if trainer.is_global_zero:
                    self.write_result(step)  # first: a run that is killed between the two does these steps again
            trainer.save_checkpoint(self.run_dir / "checkpoints" / f"step-{step:06d}")
            self.events.add("save", step)
            older = checkpoints(self.run_dir)[: -self.keep]
            for old in older:
                if old != self.best():
                    trainer.strategy.remove_checkpoint(old)

    def _is_best(self, step: int) -> bool:
        """By a look at this very step."""
        ratios = self.ratios or {}
        return step != self.best_step and step in ratios and ratios[step] == min(ratios.values()) and ratios[step] < 1

    def best(self) -> Path | None:
        """Of the checkpoints that are there, the one with the least held-out loss by `ratios`; None where none was judged."""
        ratios = self.ratios or {}
        judged = [one for one in checkpoints(self.run_dir) if step_of(one) in ratios]
        return min(judged, key=lambda one: ratios[step_of(one)], default=None)

    def state_dict(self) -> dict[str, Any]:
        """The step of this very save, and of the best look."""
        return {"saved_step": self.saved_step, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored on resume."""
        self.saved_step, self.best_step = state_dict["saved_step"], state_dict["best_step"]
