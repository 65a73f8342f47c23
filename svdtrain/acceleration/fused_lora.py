"""A LoRA's linear layer as one operation: x W^T + b + s (x A^T) B^T, in the base's precision, with fp32 masters.

peft computes the low-rank part in fp32 beside a bf16 base, with a copy of the input in each precision. Here A and B are
cast once for each forward pass of the network (all at once, where they share a storage), products accumulate into the
base's output, and what is learnt into the masters' fp32 gradients, where they are. Layers of one input can go together: the
input's gradient is then one sum, made in place.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from svdtrain.acceleration.frozen_modules import is_frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.acceleration.patches import Patches

Context = Any


class LoRALinears(torch.autograd.Function):
    """N rows of D features to N rows of O, by each of several layers; their bases are frozen."""

    @staticmethod
    def forward(ctx: Context, input_ND: Tensor, scales: Sequence[float], *parts: Tensor | None) -> tuple[Tensor, ...]:
        """parts: of each layer weight [O, D], bias [O]; A [R, D] and B [O, R] in the input's precision; their masters.

        The last four are None where a layer has no LoRA; of the input nothing is kept where none has.
        """
        learns = any(part[2] is not None for part in _by_layer(parts, 6))
        kept: list[Tensor | None] = [input_ND if learns else None]
        answers: list[Tensor] = []
        for scale, (weight_OD, bias_O, down_RD, up_OR, *_) in zip(scales, _by_layer(parts, 6), strict=True):
            assert weight_OD is not None
            answer_NO, inner_NR = functional.linear(input_ND, weight_OD, bias_O), None
            if down_RD is not None and up_OR is not None:
                inner_NR = input_ND @ down_RD.T
                answer_NO.addmm_(inner_NR, up_OR.T, alpha=scale)
            answers.append(answer_NO)
            kept += [weight_OD, down_RD, up_OR, inner_NR]
        ctx.save_for_backward(*kept)
        ctx.scales = scales
        ctx.masters = [(None, None) if torch.compiler.is_compiling() else part[4:] for part in _by_layer(parts, 6)]
        ctx.dtypes = [part[4].dtype if part[4] is not None else None for part in _by_layer(parts, 6)]
        return tuple(answers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *gradients: Tensor) -> tuple[Any, ...]:
        """Of the input where it is wanted, summed in place; of the masters, into the gradients that they have.

        Which is for a whole backward(): torch.autograd.grad and backward(inputs=...) want masters without gradients.
        """
        input_ND, *kept = ctx.saved_tensors
        wanted, _, *wanted_parts = ctx.needs_input_grad
        before_ND: Tensor | None = None
        answers: list[Tensor | None] = []
        layers = zip(gradients, ctx.scales, _by_layer(kept, 4), ctx.masters, ctx.dtypes, strict=True)
        for gradient_NO, scale, (weight_OD, down_RD, up_OR, inner_NR), masters, dtype in layers:
            if wanted:
                before_ND = gradient_NO @ weight_OD if before_ND is None else before_ND.addmm_(gradient_NO, weight_OD)
            learnt: list[Tensor | None] = [None, None]
            if down_RD is not None:
                inner_gradient_NR = gradient_NO @ up_OR
                if before_ND is not None:
                    before_ND.addmm_(inner_gradient_NR, down_RD, alpha=scale)
                pairs = (inner_gradient_NR.T, input_ND), (gradient_NO.T, inner_NR)
                learnt = [
                    _learnt(master, *pair, scale, dtype) if wants else None
                    for master, pair, wants in zip(masters, pairs, wanted_parts[len(answers) + 4 :], strict=False)
                ]
            answers += [None, None, None, None, *learnt]
        return before_ND, None, *answers


def _learnt(master: Any, one: Tensor, other: Tensor, scale: float, dtype: torch.dtype) -> Tensor | None:  # noqa: ANN401
    """scale * one @ other as a master's gradient: added where it has one, unless somebody is to see it first."""
    watched = master is None or master._backward_hooks or master._post_accumulate_grad_hooks
    there: Tensor | None = getattr(master, "grad", None)
    if watched or there is None:
        return (one @ other).mul_(scale).to(dtype)
    if one.dtype == there.dtype:
        there.addmm_(one, other, alpha=scale)
    else:
        there.add_(one @ other, alpha=scale)
    return None


def _by_layer(values: Sequence[Any], each: int) -> list[Sequence[Any]]:
    return [values[first : first + each] for first in range(0, len(values), each)]


def fused_lora(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every linear LoRA layer; returns why there is none, or nothing. Others of peft's layers stay as they are."""
    layers = [module for module in denoiser.modules() if type(module) is Linear and _is_plain(module)]
    casts: list[Casts] = [{} for _ in layers]
    for layer, its in zip(layers, casts, strict=True):
        patches.forward(layer, partial(_adapted, layer, layer.get_base_layer(), its, layer.forward))
    if layers:
        hook = denoiser.register_forward_pre_hook(lambda *_: _cast_anew(layers, casts))
        patches.undo(hook.remove)
    return "" if layers else "no LoRA of plain linear layers (dropout, DoRA, LoHa and LoKr go by peft's own path)"


def _is_plain(layer: Any) -> bool:  # noqa: ANN401
    base = layer.get_base_layer()
    return (
        type(base) is nn.Linear
        and not layer.fan_in_fan_out
        and not layer.lora_variant
        and is_frozen(base)
        and all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
        and not any(layer.lora_bias.values())
    )


def _adapted(
    layer: Any, base: nn.Module, casts: Casts, usual: Any, hidden: Tensor, *args: Any, **kwargs: Any,  # noqa: ANN401
) -> Tensor:  # fmt: skip
    usually = args or kwargs or torch.is_autocast_enabled(hidden.device.type)
    found = None if usually else _parts_of(layer, base, casts)
    return usual(hidden, *args, **kwargs) if found is None else _applied([found], hidden)[0]


def together(layers: Sequence[nn.Module], hidden: Tensor) -> Sequence[Tensor]:
    """What each of these linear layers makes of one input: as one operation where nothing but LoRAs of here is on them."""
    if torch.is_autocast_enabled(hidden.device.type):
        return [layer(hidden) for layer in layers]
    found = [_known(layer) for layer in layers]
    return [layer(hidden) for layer in layers] if None in found else _applied(found, hidden)  # type: ignore[arg-type]


Casts = dict[str, "tuple[Tensor, Tensor]"]
"""Adapter -> A and B in the base's precision, as they were when the network's pass began."""
Parts = tuple[float, tuple["Tensor | None", ...]]
"""A layer's scale, and what LoRALinears takes of it."""


def _applied(found: Sequence[Parts], hidden: Tensor) -> Sequence[Tensor]:
    """[..., D] to [..., O]."""
    scales, parts = zip(*found, strict=True)
    weight: Any = parts[0][0]
    input_ND = hidden.reshape(-1, hidden.shape[-1]).to(weight.dtype)
    answers: Any = LoRALinears.apply(input_ND, scales, *chain(*parts))
    return [answer_NO.unflatten(0, hidden.shape[:-1]) for answer_NO in answers]


def _parts_of(layer: Any, base: nn.Module, casts: Casts) -> Parts | None:  # noqa: ANN401
    """None where the layer as it is now goes by peft's path. Past attribute look-ups of modules, which take longer."""
    if layer._disable_adapters or layer.merged_adapters:
        return None
    named = layer._active_adapter
    downs, ups, own = layer._modules["lora_A"]._modules, layer._modules["lora_B"]._modules, base._parameters
    active = [name for name in ([named] if isinstance(named, str) else named) if name in downs]
    if len(active) != 1:
        return None
    weight: Any = own["weight"]
    down, up = downs[active[0]]._parameters["weight"], ups[active[0]]._parameters["weight"]
    cast = casts.get(active[0]) or (down.detach().to(weight.dtype), up.detach().to(weight.dtype))
    return layer.scaling[active[0]], (weight, own["bias"], *cast, down, up)


def _known(layer: nn.Module) -> Parts | None:
    """Likewise of any layer; None for one with hooks, or whose forward pass is somebody's."""
    forward = vars(layer).get("forward")
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)):
        return None
    if isinstance(forward, partial) and forward.func is _adapted:
        return _parts_of(*forward.args[:3])
    if forward is None and type(layer) is nn.Linear and is_frozen(layer):
        return 1.0, (layer.weight, layer.bias, None, None, None, None)
    return None


def _cast_anew(layers: Sequence[Linear], casts: Sequence[Casts]) -> None:
    """For this pass of the network: the masters may have changed. One kernel for each storage."""
    whole: dict[int, Tensor] = {}
    for layer, its in zip(layers, casts, strict=True):
        dtype = layer.get_base_layer().weight.dtype
        for name, down in layer.lora_A.items():
            its[name] = tuple(_cast(part.weight, dtype, whole) for part in (down, layer.lora_B[name]))  # type: ignore[assignment]


def _cast(master: Tensor, dtype: torch.dtype, whole: dict[int, Tensor]) -> Tensor:
    """The master itself where it has this precision; else a view of all of its storage in the other one."""
    if master.dtype == dtype:
        return master.detach()
    storage = master.untyped_storage()
    if storage._cdata not in whole:
        values = torch.empty(0, dtype=master.dtype, device=master.device).set_(storage)  # type: ignore[arg-type]
        whole[storage._cdata] = values.to(dtype)
    return whole[storage._cdata].as_strided(master.shape, master.stride(), master.storage_offset())
