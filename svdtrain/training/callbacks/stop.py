"""SIGTERM and SIGINT: stop after the optimizer step in hand, save, and leave with 143 or 130. A second signal ends at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    import pytorch_lightning as pl


class GracefulStop(Callback):
    """The handler only sets a flag; everything else happens between steps."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.received: int | None = None
        self.step = 0
        self.previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """128 + signal when the run was stopped by one."""
        return None if self.received is None else 128 + self.received

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Lightning's own handlers stand before ours and come back after."""
        self.step = trainer.global_step
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """At the first optimizer boundary after a signal."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if self.received is not None and stepped and not trainer.should_stop:
            path = self.run_dir / "checkpoints" / f"step-{trainer.global_step:06d}"
            if not path.exists():
                trainer.save_checkpoint(path)
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """Give the handlers back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
