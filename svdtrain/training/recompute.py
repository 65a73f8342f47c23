"""Gradient checkpointing of a denoiser's repeated blocks: less memory, equal gradients.

diffusers' own switch leaves SVD's temporal transformer blocks out, which hold half of all activations.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def recompute_blocks(denoiser: nn.Module, class_names: Sequence[str]) -> int:
    """Recompute every block of these classes in the backward pass; returns how many there are."""
    blocks = [module for module in denoiser.modules() if type(module).__name__ in class_names]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return len(blocks)
