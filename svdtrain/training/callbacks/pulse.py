"""Tells the run's pulse that something was done: batches, passes through the denoiser, and the step they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from svdtrain.launching.pulse import Pulse
    from svdtrain.training.module import FineTuning


class PulseMarks(Callback):
    """The denoiser runs in training, validation and sampling alike; a rank that waits for another makes no mark."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse

    def on_fit_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """Hooks stay as long as the module does."""
        module.denoiser.register_forward_pre_hook(self.pulse.mark)
        self.pulse.step, self.pulse.trains = trainer.global_step, True

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: ANN401
        """Data has come."""
        self.pulse.mark()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """A batch is done, and an optimizer step perhaps."""
        if trainer.global_step != self.pulse.step:
            self.pulse.stepped(trainer.global_step)
        else:
            self.pulse.mark()
