"""SIGTERM and SIGINT: stop after the optimizer step in hand, save, and leave with 143 or 130. A second signal ends at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

if TYPE_CHECKING:
    from types import FrameType

    import pytorch_lightning as pl


class GracefulStop(Callback):
    """The handler only sets a flag; everything else happens between steps: SaveCheckpoints saves whatever is stopped.

    Stands before the callbacks that work at the start of a fit: until ours is in place, Lightning's handlers would leave
    with the wrong code. Lightning gives back those that it found.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.step = 0

    @property
    def exit_code(self) -> int | None:
        """128 + signal when the run was stopped by one."""
        return None if self.received is None else 128 + self.received

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """From here on, nothing is cut short by a first signal."""
        self.step = trainer.global_step
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """At the first optimizer boundary after a signal."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if self.received is not None and stepped:
            trainer.should_stop = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
