"""A LoRA's linear layer as one operation: x W^T + b + s (x A^T) B^T, in the base's precision, with fp32 masters.

peft computes the low-rank part in fp32 beside a bf16 base, with a copy of the input in each precision. Here A and B are
cast once for each forward pass of the network (all at once, where they share a storage), products accumulate into the
base's output, and gradients arrive in the masters' fp32.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from svdtrain.acceleration.patches import Patches

Context = Any


class LoRALinear(torch.autograd.Function):
    """N rows of D features to N rows of O; the base is frozen."""

    @staticmethod
    def forward(
        ctx: Context, input_ND: Tensor, weight_OD: Tensor, bias_O: Tensor | None, down_RD: Tensor, up_OR: Tensor,
        master_down_RD: Tensor, master_up_OR: Tensor, scale: float,  # noqa: ARG004
    ) -> Tensor:  # fmt: skip
        """down and up: the masters in the input's precision."""
        inner_NR = input_ND @ down_RD.T
        ctx.save_for_backward(input_ND, inner_NR, weight_OD, down_RD, up_OR)
        ctx.scale, ctx.dtype = scale, master_down_RD.dtype
        return functional.linear(input_ND, weight_OD, bias_O).addmm_(inner_NR, up_OR.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient_NO: Tensor) -> tuple[Tensor | None, ...]:
        """Of the input where it is wanted, and of the masters."""
        input_ND, inner_NR, weight_OD, down_RD, up_OR = ctx.saved_tensors
        inner_gradient_NR = (gradient_NO @ up_OR).mul_(ctx.scale)
        wanted, *_ = ctx.needs_input_grad
        before_ND = (gradient_NO @ weight_OD).addmm_(inner_gradient_NR, down_RD) if wanted else None
        down_gradient_RD = (inner_gradient_NR.T @ input_ND).to(ctx.dtype)
        up_gradient_OR = (gradient_NO.T @ inner_NR).mul_(ctx.scale).to(ctx.dtype)
        return before_ND, None, None, None, None, down_gradient_RD, up_gradient_OR, None


def fused_lora(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every linear LoRA layer; returns why there is none, or nothing. Others of peft's layers stay as they are."""
    copies = Copies()
    layers = [module for module in denoiser.modules() if type(module) is Linear and _is_plain(module)]
    for layer in layers:
        patches.forward(layer, partial(_adapted, layer, copies, layer.forward))
    if layers:
        hook = denoiser.register_forward_pre_hook(lambda *_: copies.forget())
        patches.undo(hook.remove)
    return "" if layers else "no LoRA of plain linear layers (dropout, DoRA, LoHa and LoKr go by peft's own path)"


def _is_plain(layer: Any) -> bool:  # noqa: ANN401
    base = layer.get_base_layer()
    return (
        type(base) is nn.Linear
        and not layer.fan_in_fan_out
        and not layer.lora_variant
        and not any(parameter.requires_grad for parameter in base.parameters())
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
        and not any(layer.lora_bias.values())
    )


def _adapted(layer: Any, copies: Copies, usual: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or layer.disable_adapters or layer.merged or args or kwargs:
        return usual(hidden, *args, **kwargs)
    down, up = layer.lora_A[active[0]].weight, layer.lora_B[active[0]].weight
    base = layer.get_base_layer()
    input_ND = hidden.reshape(-1, hidden.shape[-1]).to(base.weight.dtype)
    casts = copies.of(down, input_ND.dtype), copies.of(up, input_ND.dtype)
    scale = layer.scaling[active[0]]
    answer_NO = LoRALinear.apply(input_ND, base.weight, base.bias, *casts, down, up, scale)
    return answer_NO.unflatten(0, hidden.shape[:-1])  # type: ignore[union-attr]


class Copies:
    """The masters in another precision, cast anew for each forward pass of the network: one kernel for each storage."""

    def __init__(self) -> None:
        self._casts: dict[int, Tensor] = {}
        """Address of a storage -> all of it in the other precision."""

    def forget(self) -> None:
        """The masters may have changed."""
        self._casts.clear()

    def of(self, master: Tensor, dtype: torch.dtype) -> Tensor:
        """The master itself where it has this precision."""
        if master.dtype == dtype:
            return master.detach()
        storage = master.untyped_storage()
        if storage._cdata not in self._casts:
            whole = torch.empty(0, dtype=master.dtype, device=master.device).set_(storage)  # type: ignore[arg-type]
            self._casts[storage._cdata] = whole.to(dtype)
        return self._casts[storage._cdata].as_strided(master.shape, master.stride(), master.storage_offset())
