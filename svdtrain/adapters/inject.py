"""LoRA layers put into a plain module and taken out again, without changing what the module computes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from svdtrain.adapters.targets import half_of, matching_modules
from svdtrain.foundation.seeding import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svdtrain.adapters.spec import AdapterSpec


def lora_config(spec: AdapterSpec) -> LoraConfig:
    """The spec in peft's words: one pattern, and the rank and alpha of each half."""
    patterns = {half: settings.pattern for half, settings in spec.halves.items()}
    first = next(iter(spec.halves.values()))
    return LoraConfig(
        r=first.rank,
        lora_alpha=_whole(first.alpha),
        target_modules="|".join(f"(?:{pattern})" for pattern in patterns.values()),
        rank_pattern={patterns[half]: s.rank for half, s in spec.halves.items()},
        alpha_pattern={patterns[half]: _whole(s.alpha) for half, s in spec.halves.items()},
        lora_dropout=0.0,
        bias="none",
    )


def _whole(alpha: float) -> Any:  # noqa: ANN401  (peft annotates int, and computes with any number)
    return int(alpha) if alpha == int(alpha) else alpha


def inject(denoiser: nn.Module, spec: AdapterSpec, *, seed: int, name: str = "default") -> dict[str, str]:
    """Freeze the denoiser and add trainable fp32 LoRA to it; returns module name -> half.

    B is zero, so the output stays equal to the bit; A is uniform in +-1/sqrt(fan in), drawn by (seed, module name).
    """
    modules = matching_modules(denoiser, spec)
    denoiser.requires_grad_(False)
    inject_adapter_in_model(lora_config(spec), denoiser, adapter_name=name)
    for module_name, layer in lora_layers(denoiser, name):
        down, up = layer.lora_A[name], layer.lora_B[name]
        down.to(torch.float32)
        up.to(torch.float32)
        if down.weight.is_meta:
            continue
        fan_in = down.weight[0].numel()
        uniform = torch.rand(down.weight.shape, generator=generator(seed, "lora", module_name))
        with torch.no_grad():
            down.weight.copy_((2 * uniform - 1) * fan_in**-0.5)
            up.weight.zero_()
    return modules


def lora_layers(denoiser: nn.Module, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """(module name, layer) of every LoRA layer, or of those that hold the named adapter."""
    for module_name, module in denoiser.named_modules():
        if isinstance(module, LoraLayer) and (name is None or name in module.lora_A):
            yield module_name, module


def adapter_parameters(denoiser: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """The adapter's live parameters by their names in files: MODULE.lora_A.weight [r, in], MODULE.lora_B.weight [out, r]."""
    return {
        f"{module_name}.{side}.weight": getattr(layer, side)[name].weight
        for module_name, layer in lora_layers(denoiser, name)
        for side in ("lora_A", "lora_B")
    }


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Names of the adapters in a module, in order of loading."""
    return list(dict.fromkeys(name for _, layer in lora_layers(denoiser) for name in layer.lora_A))


def activate(denoiser: nn.Module, names: list[str]) -> None:
    """Sum exactly these adapters in every forward pass."""
    for _, layer in lora_layers(denoiser):
        layer.enable_adapters(bool(names))
        if names:
            requires_grad = {id(p): p.requires_grad for p in layer.parameters()}
            layer.set_adapter([n for n in names if n in layer.lora_A])
            for parameter in layer.parameters():
                parameter.requires_grad_(requires_grad[id(parameter)])


def set_scale(denoiser: nn.Module, name: str, strengths: dict[str, float]) -> None:
    """Scale an adapter by half: 1 as trained, 0 off."""
    for module_name, layer in lora_layers(denoiser, name):
        layer.set_scale(name, strengths[half_of(module_name)])


def remove(denoiser: nn.Module, name: str) -> None:
    """Take an adapter out; with the last one gone, the original modules stand in their places again."""
    for module_name, layer in list(lora_layers(denoiser, name)):
        layer.delete_adapter(name)
        if not layer.lora_A:
            parent_name, _, child = module_name.rpartition(".")
            setattr(denoiser.get_submodule(parent_name), child, layer.get_base_layer())
    getattr(denoiser, "peft_config", {}).pop(name, None)


def modules_of(keys: list[str]) -> dict[str, list[str]]:
    """Module names by half, from the tensor names of a file."""
    halves: dict[str, list[str]] = {}
    for module in dict.fromkeys(re.sub(r"\.lora_[AB]\.weight$", "", key) for key in keys):
        halves.setdefault(half_of(module), []).append(module)
    return halves
