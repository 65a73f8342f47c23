"""The memory ladder: what the backward pass computes again instead of keeping it. Gradients stay equal to the bit.

diffusers' own switch leaves SVD's temporal transformer blocks out, which hold half of all activations.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from svdtrain.acceleration.patches import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    Waits = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]
    """What becomes of a tensor that waits elsewhere, and the tensor again."""

RUNGS = ("none", "feed_forward", "blocks", "nested", "offload")
"""From fast to small. feed_forward: 0.6 of the memory for a tenth more work. blocks: every repeated block. nested: the
feed-forwards within them once more. offload: as nested, and what blocks begin with waits in the CPU's memory."""
FEED_FORWARD = ("FeedForward",)


def recompute(denoiser: nn.Module, rung: str, repeated_blocks: Sequence[str], waits: Waits | None = None) -> Patches:
    """Put a rung in place. repeated_blocks: class names of the denoiser's blocks. waits: offload's there and back."""
    assert rung in ("auto", *RUNGS), rung
    patches = Patches()
    wrappers: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {}
    if rung in ("feed_forward", "nested", "offload"):
        wrappers |= dict.fromkeys(FEED_FORWARD, _checkpointed)
    if rung in ("blocks", "nested"):
        wrappers |= dict.fromkeys(repeated_blocks, _checkpointed)
    if rung == "offload":
        wrappers |= dict.fromkeys(repeated_blocks, partial(_offloaded, waits or (to_host, from_host)))
    for module in denoiser.modules():
        if wrap := wrappers.get(type(module).__name__):
            patches.forward(module, wrap(module))
    return patches


def _checkpointed(module: nn.Module) -> Callable[..., Any]:
    return partial(checkpoint, module.forward, use_reentrant=False)


def _offloaded(waits: Waits, module: nn.Module) -> Callable[..., Any]:
    return partial(_run_offloaded, waits, module.forward)


def _run_offloaded(waits: Waits, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """What a checkpointed block begins with is all that these hooks see of it."""
    with saved_tensors_hooks(*waits):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def to_host(tensor: Tensor) -> tuple[Tensor, torch.device]:
    """A copy in the CPU's memory; pinned, and without waiting for it, where it comes from a GPU."""
    waiting = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
    return waiting.copy_(tensor, non_blocking=True), tensor.device


def from_host(waiting: tuple[Tensor, torch.device]) -> Tensor:
    """Back where it came from."""
    tensor, device = waiting
    return tensor.to(device, non_blocking=True)
