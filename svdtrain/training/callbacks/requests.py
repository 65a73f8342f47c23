"""What is asked of a run from outside, by a signal or by a file: all ranks do it after the same optimizer step."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, get_args

import torch
from pytorch_lightning.callbacks import Callback
from torch import distributed

from svdtrain.launching.control import Request

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from svdtrain.launching.control import Control
    from svdtrain.launching.notice import Notice
    from svdtrain.reporting.run_events import RunEvents

NAMES: tuple[Request, ...] = get_args(Request)


class Requests(Callback):
    """SIGTERM, SIGINT, SIGUSR1 and `stop` stop; `sample` and `save` are for SampleVideos and SaveCheckpoints to take."""

    def __init__(self, notice: Notice, control: Control, events: RunEvents) -> None:
        self.notice, self.control, self.events = notice, control, events
        self.wanted: set[Request] = set()
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
        """At the first optimizer boundary after a signal to any rank, or a request to the first."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if not stepped:
            return
        self.wanted.clear()  # of the step before
        asked = self.control.taken() if trainer.is_global_zero else set[Request]()
        told = torch.tensor([self.notice.received, *(name in asked for name in NAMES)])
        if self.group is not None:
            distributed.all_reduce(told, distributed.ReduceOp.MAX, group=self.group)
        number, *flags = told.tolist()
        self.wanted |= {name for name, flag in zip(NAMES, flags, strict=True) if flag}
        for name in sorted(self.wanted):
            self.events.add("asked", self.step, request=name)
        if number or "stop" in self.wanted:
            self.notice.received = number or int(signal.SIGINT)
            trainer.should_stop = True
