"""What the frozen encoders made of clips that came before, kept in memory while it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from svdtrain.types import EncodedClips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class EncodingCache:
    """Clip key -> its row of EncodedClips (fp32, on the CPU): the very bits. New clips are left out once it is full."""

    def __init__(self, max_bytes: int = 2 * 2**30) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.rows: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def get(self, keys_B: Sequence[str], device: torch.device | str) -> EncodedClips | None:
        """The batch's encodings, or None when any of its clips is not here."""
        if not all(key in self.rows for key in keys_B):
            return None
        return EncodedClips(
            *(torch.stack(column) for column in zip(*(self.rows[key] for key in keys_B), strict=True))
        ).to(device)

    def put(self, keys_B: Sequence[str], encoded: EncodedClips) -> None:
        """Keep the clips of a batch."""
        columns = (encoded.mean_BTCHW.cpu(), encoded.logvar_BTCHW.cpu(), encoded.embeddings_BLD.cpu())
        for key, *row in zip(keys_B, *columns, strict=True):
            size = sum(tensor.nbytes for tensor in row)
            if key not in self.rows and self.bytes + size <= self.max_bytes:
                self.rows[key] = (row[0].clone(), row[1].clone(), row[2].clone())
                self.bytes += size
