"""Operations of frozen weights that keep less for the backward pass, and compute the same bits.

torch keeps a convolution's input for the gradient of its weight, even where that is not wanted; and of GroupNorm + SiLU and
of GEGLU it keeps what is one pointwise pass away from what it keeps anyway. None of these has a second derivative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

Context = Any
"""Of a torch.autograd.Function."""


class FrozenConvolution(torch.autograd.Function):
    """A convolution whose weight and bias are frozen: its input is not kept."""

    @staticmethod
    def forward(
        ctx: Context, input_NC: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], groups: int,
    ) -> Tensor:  # fmt: skip
        """N clips or frames of C channels; any number of axes."""
        ctx.save_for_backward(weight)
        ctx.shape, ctx.settings = input_NC.shape, (stride, padding, dilation, groups)
        zeros = [0] * len(stride)
        return torch.convolution(input_NC, weight, bias, stride, padding, dilation, False, zeros, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the input alone, which needs no more than the input's shape."""
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        shape_only = gradient.new_empty(1).expand(ctx.shape)
        answer, _, _ = torch.ops.aten.convolution_backward(
            gradient, shape_only, weight, None, stride, padding, dilation, False, [0] * len(stride), groups,
            (True, False, False),
        )  # fmt: skip
        return (answer, *[None] * 6)


def convolve(convolution: nn.Conv2d | nn.Conv3d, input_NC: Tensor) -> Tensor:
    """A frozen module's convolution, of zero padding."""
    settings: Any = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    return FrozenConvolution.apply(input_NC, convolution.weight, convolution.bias, *settings)  # type: ignore[return-value]


class NormedSiLU(torch.autograd.Function):
    """SiLU(GroupNorm(x)) of frozen weights: keeps x and its statistics."""

    @staticmethod
    def forward(ctx: Context, input_NC: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """As torch.nn.functional has both."""
        input_NC = input_NC.contiguous()
        normed, mean, deviation = _normed(input_NC, weight, bias, groups, eps)
        ctx.save_for_backward(input_NC, weight, bias, mean, deviation)
        ctx.settings = groups, eps
        return functional.silu(normed, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The norm once more, then both derivatives."""
        input_NC, weight, bias, mean, deviation = ctx.saved_tensors
        groups, eps = ctx.settings
        normed, _, _ = _normed(input_NC, weight, bias, groups, eps)
        inner = torch.ops.aten.silu_backward(gradient, normed).contiguous()
        del normed
        count, channels = input_NC.shape[:2]
        pixels = input_NC[0, 0].numel()
        answer, _, _ = torch.ops.aten.native_group_norm_backward(
            inner, input_NC, mean, deviation, weight, count, channels, pixels, groups,
            (True, False, False),
        )  # fmt: skip
        return (answer, *[None] * 4)


def _normed(input_NC: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    count, channels = input_NC.shape[:2]
    pixels = input_NC[0, 0].numel()
    return torch.native_group_norm(input_NC, weight, bias, count, channels, pixels, groups, eps)


def normed_silu(norm: nn.GroupNorm, input_NC: Tensor) -> Tensor:
    """A frozen GroupNorm and the SiLU after it."""
    return NormedSiLU.apply(input_NC, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[return-value]


def geglu_product(both: Tensor) -> Tensor:
    """value * GELU(gate), of [..., value and gate]."""
    value, gate = both.chunk(2, dim=-1)
    return value * functional.gelu(gate)


def geglu_gradient(both: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of [..., value and gate] from that of the product."""
    value, gate = both.chunk(2, dim=-1)
    return torch.cat([gradient * functional.gelu(gate), torch.ops.aten.gelu_backward(gradient * value, gate)], dim=-1)


class GatedProduct(torch.autograd.Function):
    """value * GELU(gate): keeps the two as one tensor, and not GELU(gate)."""

    product = staticmethod(geglu_product)
    gradient = staticmethod(geglu_gradient)

    @staticmethod
    def forward(ctx: Context, both: Tensor) -> Tensor:
        """[..., 2 D] to [..., D]."""
        ctx.save_for_backward(both)
        return GatedProduct.product(both)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> Tensor:
        """GELU once more."""
        (both,) = ctx.saved_tensors
        return GatedProduct.gradient(both, gradient)
