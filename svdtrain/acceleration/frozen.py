"""Operations of frozen weights that keep less for the backward pass, and compute the same bits.

torch keeps a convolution's input for the gradient of its weight, even where that is not wanted; and of GroupNorm + SiLU and
of GEGLU it keeps what is one pointwise pass away from what it keeps anyway. None of these has a second derivative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


@dataclass(frozen=True)
class Pointwise:
    """Who computes the passes that are no matrix product: torch, kernel by kernel, or fused_pointwise.py."""

    normed: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(input_NC, weight, bias, groups, eps, silu) -> GroupNorm, and SiLU where wanted; the groups' mean, 1 / deviation."""
    norm_gradient: Callable[..., Tensor]
    """(gradient_NC, input_NC, weight, bias, mean, deviation, groups, eps, silu) -> that of the input."""
    product: Callable[[Tensor], Tensor]
    """[..., value and gate] -> value * GELU(gate)."""
    product_gradient: Callable[[Tensor, Tensor], Tensor]
    """(value and gate, gradient of the product) -> that of value and gate."""
    blended: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """(one, other, share, 1 - share) -> share * one + (1 - share) * other."""
    blend_gradient: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """(gradient, share, 1 - share) -> those of one and other."""


class Normed(torch.autograd.Function):
    """GroupNorm of frozen weights, and SiLU after it where wanted: keeps its input and the statistics."""

    @staticmethod
    def forward(
        ctx: Context, input_NC: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, by: Pointwise
    ) -> Tensor:
        """As torch.nn.functional has both."""
        input_NC = input_NC.contiguous()
        answer, mean, deviation = by.normed(input_NC, weight, bias, groups, eps, silu)
        ctx.save_for_backward(input_NC, weight, bias, mean, deviation)
        ctx.settings, ctx.by = (groups, eps, silu), by
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The norm once more, then both derivatives."""
        return (ctx.by.norm_gradient(gradient, *ctx.saved_tensors, *ctx.settings), *[None] * 6)


def normed_silu(norm: nn.GroupNorm, input_NC: Tensor, by: Pointwise) -> Tensor:
    """A frozen GroupNorm and the SiLU after it."""
    return Normed.apply(input_NC, norm.weight, norm.bias, norm.num_groups, norm.eps, True, by)  # type: ignore[return-value]


class GatedProduct(torch.autograd.Function):
    """value * GELU(gate): keeps the two as one tensor, and not GELU(gate)."""

    @staticmethod
    def forward(ctx: Context, both: Tensor, by: Pointwise) -> Tensor:
        """[..., 2 D] to [..., D]."""
        ctx.save_for_backward(both)
        ctx.by = by
        return by.product(both)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        """GELU once more."""
        return ctx.by.product_gradient(*ctx.saved_tensors, gradient), None


class Blend(torch.autograd.Function):
    """share * one + rest * other, where rest is 1 - share, of a frozen share: keeps neither of them."""

    @staticmethod
    def forward(ctx: Context, one: Tensor, other: Tensor, share: Tensor, rest: Tensor, by: Pointwise) -> Tensor:
        """The shares' shape goes over the others'."""
        ctx.save_for_backward(share, rest)
        ctx.by = by
        return by.blended(one, other, share, rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Both at once."""
        return (*ctx.by.blend_gradient(gradient, *ctx.saved_tensors), None, None, None)


def _normed(
    input_NC: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    count, channels = input_NC.shape[:2]
    pixels = math.prod(input_NC.shape[2:])
    normed, mean, deviation = torch.native_group_norm(input_NC, weight, bias, count, channels, pixels, groups, eps)
    return functional.silu(normed, inplace=True) if silu else normed, mean, deviation


def _norm_gradient(
    gradient: Tensor, input_NC: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor,
    groups: int, eps: float, silu: bool,
) -> Tensor:  # fmt: skip
    if silu:
        normed, _, _ = _normed(input_NC, weight, bias, groups, eps, silu=False)
        gradient = torch.ops.aten.silu_backward(gradient, normed)
        del normed
    count, channels = input_NC.shape[:2]
    pixels = math.prod(input_NC.shape[2:])
    statistics = mean.to(weight.dtype), deviation.to(weight.dtype)
    answer, _, _ = torch.ops.aten.native_group_norm_backward(
        gradient.contiguous(), input_NC, *statistics, weight, count, channels, pixels, groups, (True, False, False)
    )
    return answer


def _product(both: Tensor) -> Tensor:
    value, gate = both.chunk(2, dim=-1)
    return functional.gelu(gate).mul_(value)


def _product_gradient(both: Tensor, gradient: Tensor) -> Tensor:
    value, gate = both.chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # whose kernel writes both halves where they belong
        of_gate = torch.ops.aten.gelu_backward(gradient * value, gate)
        return torch.cat([gradient * functional.gelu(gate), of_gate], dim=-1)
    answer = torch.empty_like(both)
    of_value, of_gate = answer.chunk(2, dim=-1)
    torch.mul(gradient, functional.gelu(gate), out=of_value)
    torch.ops.aten.gelu_backward.grad_input(gradient * value, gate, grad_input=of_gate)
    return answer


def _blended(one: Tensor, other: Tensor, _share: Tensor, rest: Tensor) -> Tensor:
    return torch.lerp(one, other, rest)


def _blend_gradient(gradient: Tensor, share: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    return share * gradient, rest * gradient


EAGER = Pointwise(_normed, _norm_gradient, _product, _product_gradient, _blended, _blend_gradient)
"""By torch's own kernels."""
