"""SIGTERM, SIGINT and SIGUSR1, to any rank: stop after the optimizer step in hand, on all ranks, and save.

The exit code is 143, 130, or 75 after SIGUSR1 (a cluster's notice: the run wants to be started again). A second signal ends
at once.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import distributed

if TYPE_CHECKING:
    from types import FrameType

    import pytorch_lightning as pl

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


class GracefulStop(Callback):
    """The handler only sets a flag; everything else happens between steps: SaveCheckpoints saves whatever is stopped.

    Stands before the callbacks that work at the start of a fit: until ours is in place, Lightning's handlers would leave
    with the wrong code. Lightning gives back those that it found.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.step = 0
        self.group: Any = None
        """Of all ranks, over the CPU: asking the others does not wait for a GPU."""

    @property
    def exit_code(self) -> int | None:
        """When the run was stopped by a signal."""
        return None if self.received is None else EXIT_CODES[signal.Signals(self.received)]

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """From here on, nothing is cut short by a first signal."""
        self.step = trainer.global_step
        for number in EXIT_CODES:
            signal.signal(number, self._on_signal)
        if distributed.is_initialized():
            self.group = distributed.new_group(backend="gloo")
            # Lightning's own exchange at every step: it waits for the GPU, and hangs where one rank alone has a signal.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """At the first optimizer boundary after a signal to any rank: the same one on all."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped:
            return
        number = self.received or 0
        if self.group is not None:
            flag = torch.tensor([number])
            distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self.group)
            number = int(flag)
        if number:
            self.received = number
            trainer.should_stop = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.received = number
