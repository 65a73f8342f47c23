"""Ranks compare what they have trained: a bit that flips on one of them would go unseen, and into the result."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import distributed

from svdtrain.foundation.errors import NumericError
from svdtrain.training.ranks import of_all_ranks

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytorch_lightning as pl
    from torch import Tensor

    from svdtrain.training.module import FineTuning


def digest(tensors: Iterable[Tensor]) -> int:
    """63 bits of the sha256 of their bytes."""
    taken = hashlib.sha256()
    for tensor in tensors:
        taken.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return int.from_bytes(taken.digest()[:8]) >> 1


def refuse_different(tensors: Iterable[Tensor], step: int, device: torch.device) -> None:
    """Raise NumericError, on all ranks, that names those whose tensors are not what most ranks have."""
    marks = of_all_ranks(torch.tensor([digest(tensors)], device=device)).tolist()
    (usual, count), *others = Counter(marks).most_common()
    if not others:
        return
    odd = [rank for rank, mark in enumerate(marks) if count == 1 or count * 2 <= len(marks) or mark != usual]
    names = ", ".join(map(str, odd))
    raise NumericError(
        f"the weights of ranks have come apart by step {step}: rank {names} differ from the others",
        "a fault of memory or of a driver: go on from the last save, on other hardware if it happens again",
    )


class SameWeights(Callback):
    """Every few optimizer steps, and before each save; stands before what saves."""

    def __init__(self, every: int, save_every: int) -> None:
        self.every, self.save_every = every, save_every
        self.step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """Each rank's parameters, bit by bit."""
        step = trainer.global_step
        if step == self.step or not distributed.is_initialized():
            return
        self.step = step
        if step % self.every == 0 or step % self.save_every == 0 or step == trainer.max_steps or trainer.should_stop:
            refuse_different(module.trained_parameters().values(), step, module.device)
