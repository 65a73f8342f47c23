"""Posteriors of clips that were encoded before, kept in memory while they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from svdtrain.types import LatentPosterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PosteriorCache:
    """Clip key -> posterior (fp32, on the CPU); sampling from it stays exact. New clips are left out once it is full."""

    def __init__(self, max_bytes: int = 2 * 2**30) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.rows: dict[str, tuple[Tensor, Tensor]] = {}

    def get(self, keys_B: Sequence[str], device: torch.device | str) -> LatentPosterior | None:
        """The batch's posterior, or None when any of its clips is not here."""
        if not all(key in self.rows for key in keys_B):
            return None
        means, stds = zip(*(self.rows[key] for key in keys_B), strict=True)
        return LatentPosterior(torch.stack(means).to(device), torch.stack(stds).to(device))

    def put(self, keys_B: Sequence[str], posterior: LatentPosterior) -> None:
        """Keep the clips of a batch."""
        for key, mean_TCHW, std_TCHW in zip(keys_B, posterior.mean_BTCHW.cpu(), posterior.std_BTCHW.cpu(), strict=True):
            size = 2 * mean_TCHW.nbytes
            if key not in self.rows and self.bytes + size <= self.max_bytes:
                self.rows[key] = (mean_TCHW.clone(), std_TCHW.clone())
                self.bytes += size
