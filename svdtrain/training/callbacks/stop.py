"""SIGTERM, SIGINT and SIGUSR1, to any rank: stop after the optimizer step in hand, on all ranks, and save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import distributed

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from svdtrain.launching.notice import Notice


class GracefulStop(Callback):
    """Asks all ranks after each optimizer step; SaveCheckpoints saves whatever is stopped."""

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self.step = 0
        self.group: Any = None
        """Of all ranks, over the CPU: asking the others does not wait for a GPU."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """The ranks are all there, and a checkpoint is restored."""
        self.step = trainer.global_step
        if distributed.is_initialized():
            self.group = distributed.new_group(backend="gloo")
            # Lightning's own exchange at every step: it waits for the GPU, and hangs where one rank alone has a signal.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401
        """At the first optimizer boundary after a signal to any rank: the same one on all."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped:
            return
        number = self.notice.received
        if self.group is not None:
            flag = torch.tensor([number])
            distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self.group)
            number = int(flag)
        if number:
            self.notice.received = number
            trainer.should_stop = True
