"""Early stopping by the held-out loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

from svdtrain.training.ranks import from_first

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl

    from svdtrain.launching.control import Request


class EarlyStop(Callback):
    """Ends a run when `patience` looks in a row were no better than the best before them."""

    def __init__(self, ratios: Mapping[int, float], patience: int | None, wanted: set[Request]) -> None:
        self.ratios, self.patience, self.wanted = ratios, patience, wanted
        self.ended: int | None = None
        """The step it ended at."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """After a look. The first rank decides, and wants a last sample."""
        step = trainer.global_step
        if self.patience is None or step not in self.ratios or trainer.should_stop or step == trainer.max_steps:
            return
        looks = sorted(self.ratios)
        best = min(looks, key=lambda look: self.ratios[look])
        if from_first(len(looks) - 1 - looks.index(best) >= self.patience):
            self.ended, trainer.should_stop = step, True
            self.wanted.add("sample")
