"""Exponential moving average of the trained weights only (diffusers' EMAModel), swapped in wherever a result is looked at."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusers.training_utils import EMAModel
from pytorch_lightning.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytorch_lightning as pl

    from svdtrain.training.module import FineTuning


class WeightAverage(Callback):
    """Averages after every optimizer step; without a decay it does nothing."""

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.average: EMAModel | None = None
        self.step = 0

    def on_fit_start(self, trainer: pl.Trainer, module: FineTuning) -> None:  # noqa: ARG002
        """Start from the present weights, unless a checkpoint brought an average."""
        if self.decay and self.average is None:
            self.average = EMAModel([module.flat.values], decay=self.decay)
        if self.average:
            self.average.to(module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """Once per optimizer step, not per accumulated batch."""
        if self.average and trainer.global_step > self.step:
            self.step = trainer.global_step
            self.average.step([module.flat.values])

    @contextmanager
    def applied(self, module: FineTuning) -> Iterator[None]:
        """The module with averaged weights; its own come back afterwards."""
        if self.average is None:
            yield
            return
        values = module.flat.values.data
        live = values.clone()
        values.copy_(self.average.shadow_params[0])
        try:
            yield
        finally:
            values.copy_(live)

    def state_dict(self) -> dict[str, Any]:
        """The average and its step."""
        return {"step": self.step, "average": self.average.state_dict() if self.average else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored before on_fit_start."""
        self.step = state_dict["step"]
        if self.decay and state_dict["average"]:
            self.average = EMAModel(state_dict["average"]["shadow_params"], decay=self.decay)
            self.average.load_state_dict({**state_dict["average"], "decay": self.decay})
