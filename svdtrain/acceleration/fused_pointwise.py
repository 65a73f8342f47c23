"""Norms with SiLU, GEGLUs and blends of large tensors on a GPU: each pass one kernel, which torch.compile writes.

torch's own take a pass over memory for every operation of theirs, and a GroupNorm over all frames has few rows, each of which
one block of threads sums up. Statistics and all between input and output are in fp32.
"""

from __future__ import annotations

from functools import cache, partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn import functional

from svdtrain.acceleration.blends import blend
from svdtrain.acceleration.compiling import keep_on_disk, say_failed
from svdtrain.acceleration.frozen import EAGER, Normed, Pointwise
from svdtrain.acceleration.frozen_modules import CHOOSING, is_frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.acceleration.patches import Patches

DEVICES = ("cuda",)
LEAST = 2**23
"""Numbers of a tensor. With fewer, a compiled kernel takes longer to call than torch's take to run."""
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"realize_reads_threshold": 32, "compile_threads": 1}
"""Of inductor. What is used twice is computed twice, and not written down; no processes beside this one."""


def fused_pointwise(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap what frozen_operations and blends have wrapped once more; besides, lone frozen norms."""
    fused = FusedPointwise()
    for module in denoiser.modules():
        forward: Any = module.__dict__.get("forward")
        if isinstance(forward, partial) and forward.func in (*CHOOSING, blend):
            patches.forward(module, partial(forward, choose=fused.choose))
        elif isinstance(module, nn.GroupNorm) and module.affine and is_frozen(module):
            patches.forward(module, partial(_norm, fused, module, module.forward))
    return "" if len(patches) else "no frozen norm, GEGLU or blend"


class FusedPointwise:
    """The kernels, and whether they are still to be had."""

    def __init__(self) -> None:
        self.failed = ""
        flat_product = partial(self._run, product, EAGER.product)
        flat_gradient = partial(self._run, product_gradient, EAGER.product_gradient)
        self.pointwise = Pointwise(
            normed=partial(self._run, normed, _eager_normed),
            norm_gradient=partial(self._run, norm_gradient, EAGER.norm_gradient),
            product=lambda both: flat_product(both.flatten(0, -2)).unflatten(0, both.shape[:-1]),
            product_gradient=lambda both, gradient: flat_gradient(*(t.flatten(0, -2) for t in (both, gradient))).view(
                both.shape
            ),
            blended=partial(self._run, blended, EAGER.blended),
            blend_gradient=partial(self._run, blend_gradient, EAGER.blend_gradient),
        )

    def choose(self, tensor: Tensor) -> Pointwise:
        """By size alone, so that what is computed again is computed the same way. A compiled block takes care of itself."""
        if torch.compiler.is_compiling() or tensor.device.type not in DEVICES or tensor.numel() < LEAST:
            return EAGER
        return self.pointwise

    def _run(self, function: Callable[..., Any], eager: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """A function without side effects, compiled; or the other, where compiling has failed."""
        if self.failed:
            return eager(*args)
        args = tuple(value.contiguous() if isinstance(value, Tensor) else value for value in args)
        try:
            return _compiled(
                function, tuple((v.shape, v.dtype, v.device) if isinstance(v, Tensor) else v for v in args)
            )(*args)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError, FailOnRecompileLimitHit) as error:  # if it is not the compiler's, it comes again
            self.failed = say_failed("speed.fused_pointwise", error)
            return eager(*args)


@cache
def _compiled(function: Callable[..., Any], kind: tuple[Any, ...]) -> Callable[..., Any]:  # noqa: ARG001
    """A copy for each kind of input: dynamo looks through all that it made of one function at each call, and stops at 8."""
    keep_on_disk()
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return torch.compile(copy, dynamic=False, fullgraph=True, options=OPTIONS)


def _norm(fused: FusedPointwise, module: nn.GroupNorm, usual: Callable[[Tensor], Tensor], input_NC: Tensor) -> Tensor:
    by = fused.choose(input_NC)
    if by is EAGER or torch.is_autocast_enabled(input_NC.device.type):  # which takes norms in fp32
        return usual(input_NC)
    settings = module.num_groups, module.eps, False, by
    return Normed.apply(input_NC, module.weight, module.bias, *settings)  # type: ignore[return-value]


def _eager_normed(*args: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
    """Statistics in the precision of the compiled one's: what is computed again must look the same."""
    answer, mean, deviation = EAGER.normed(*args)
    precision = exact(answer)
    return answer, mean.to(precision), deviation.to(precision)


def exact(tensor: Tensor) -> torch.dtype:
    """The precision between input and output."""
    return torch.promote_types(tensor.dtype, torch.float32)


def normed(
    input_NC: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pointwise.normed."""
    count = input_NC.shape[0]
    input_NGDP = input_NC.to(exact(input_NC)).view(count, groups, weight.shape[0] // groups, -1)
    variance, mean = torch.var_mean(input_NGDP, (2, 3), correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + eps)
    answer = (input_NGDP - mean) * deviation * weight.view(groups, -1, 1) + bias.view(groups, -1, 1)
    answer = functional.silu(answer) if silu else answer
    return answer.view(input_NC.shape).to(input_NC.dtype), mean.view(count, groups), deviation.view(count, groups)


def norm_gradient(
    gradient: Tensor, input_NC: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor,
    groups: int, eps: float, silu: bool,  # noqa: ARG001
) -> Tensor:  # fmt: skip
    """Pointwise.norm_gradient."""
    shape = (input_NC.shape[0], groups, weight.shape[0] // groups, -1)
    input_NGDP, gradient_NGDP = (tensor.to(exact(tensor)).view(shape) for tensor in (input_NC, gradient))
    deviation, scale = deviation[..., None, None], weight.view(groups, -1, 1)
    unit = (input_NGDP - mean[..., None, None]) * deviation
    inner = gradient_NGDP * scale
    if silu:
        before = unit * scale + bias.view(groups, -1, 1)
        sigmoid = torch.sigmoid(before)
        inner = inner * sigmoid * (1 + before * (1 - sigmoid))
    along = unit * (inner * unit).mean((2, 3), keepdim=True)
    answer = deviation * (inner - inner.mean((2, 3), keepdim=True) - along)
    return answer.view(input_NC.shape).to(input_NC.dtype)


def product(both: Tensor) -> Tensor:
    """Pointwise.product."""
    value, gate = both.to(exact(both)).chunk(2, dim=-1)
    return (value * functional.gelu(gate)).to(both.dtype)


def product_gradient(both: Tensor, gradient: Tensor) -> Tensor:
    """Pointwise.product_gradient."""
    value, gate = both.to(exact(both)).chunk(2, dim=-1)
    gradient = gradient.to(exact(both))
    of_gate = torch.ops.aten.gelu_backward(gradient * value, gate)
    return torch.cat([gradient * functional.gelu(gate), of_gate], dim=-1).to(both.dtype)


def blended(one: Tensor, other: Tensor, share: Tensor, rest: Tensor) -> Tensor:
    """Pointwise.blended."""
    share, rest = (part.to(exact(one)) for part in (share, rest))
    return (share * one + rest * other).to(one.dtype)


def blend_gradient(gradient: Tensor, share: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Pointwise.blend_gradient."""
    share, rest = (part.to(exact(gradient)) for part in (share, rest))
    return (share * gradient).to(gradient.dtype), (rest * gradient).to(gradient.dtype)
