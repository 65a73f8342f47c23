"""Which attention kernel runs: asked for by priority, and known by name; and more rows than a kernel's grid has."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from svdtrain.acceleration.patches import Patches

PRIORITY = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Fastest first on Hopper."""
MOST_ROWS = 65_535
"""Of a CUDA grid's second and third axis, which some kernels give to rows: pytorch issue 142228."""


@contextmanager
def attention_kernels(first: str = "auto") -> Iterator[None]:
    """Attention by these kernels, in their order; `first` goes before the others."""
    names = sorted(PRIORITY, key=lambda name: name != first)
    with sdpa_kernel([PRIORITY[name] for name in names], set_priority=True):
        yield


def kernel_at_work(tokens: int, width: int, dtype: torch.dtype, device: str, first: str = "auto") -> str:
    """The first of them that this machine runs for so many tokens of so many numbers a head, backward pass included."""
    if device != "cuda":
        return "torch's own for a CPU"
    for name in sorted(PRIORITY, key=lambda name: name != first):
        query, key, value = (
            torch.zeros(1, 1, tokens, width, dtype=dtype, device=device, requires_grad=True) for _ in range(3)
        )
        try:
            with sdpa_kernel(PRIORITY[name]):
                functional.scaled_dot_product_attention(query, key, value).sum().backward()
        except RuntimeError:
            continue
        return name
    return "none"


def attention_in_parts(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every self-attention, so that more rows than a grid has go through it in parts."""
    for module in denoiser.modules():
        if isinstance(module, Attention) and not module.is_cross_attention:
            patches.forward(module, partial(_attend, module.forward))
    return "" if len(patches) else "no attention of a known kind"


def _attend(usual: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    tensors = any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))
    if hidden_states.shape[0] <= MOST_ROWS or tensors:
        return usual(hidden_states, *args, **kwargs)
    return torch.cat([usual(part, *args, **kwargs) for part in hidden_states.split(MOST_ROWS)])
