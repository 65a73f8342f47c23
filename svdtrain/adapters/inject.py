"""Adapter layers put into a plain module by peft and taken out again, without changing what the module computes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from svdtrain.adapters.layer import LOHA, LOKR, MAGNITUDE, A, B
from svdtrain.adapters.targets import adaptable_weights, half_of, matching_modules, within
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.seeding import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svdtrain.adapters.spec import AdapterSpec

_PLACES = {A: "lora_A", B: "lora_B", MAGNITUDE: MAGNITUDE} | {name: name for name in sorted(LOHA | LOKR)}
"""Part of a file -> peft's attribute, which holds a module or a parameter for each adapter's name."""


def peft_config(spec: AdapterSpec) -> PeftConfig:
    """The spec in peft's words: one pattern, and the rank and alpha of each half."""
    patterns = {half: within(spec.blocks, settings.pattern) for half, settings in spec.halves.items()}
    first = next(iter(spec.halves.values()))
    shared: dict[str, Any] = {
        "r": first.rank,
        "target_modules": "|".join(f"(?:{pattern})" for pattern in patterns.values()),
        "rank_pattern": {patterns[half]: s.rank for half, s in spec.halves.items()},
        "alpha_pattern": {patterns[half]: _whole(s.alpha) for half, s in spec.halves.items()},
    }
    if spec.kind == "loha":
        return LoHaConfig(**shared, alpha=_whole(first.alpha))
    if spec.kind == "lokr":
        return LoKrConfig(**shared, alpha=_whole(first.alpha), decompose_factor=spec.factor)
    rslora, dora = spec.kind == "rslora", spec.kind == "dora"
    return LoraConfig(**shared, lora_alpha=_whole(first.alpha), use_rslora=rslora, use_dora=dora, bias="none")


def _whole(alpha: float) -> Any:  # noqa: ANN401  (peft annotates int, and computes with any number)
    return int(alpha) if alpha == int(alpha) else alpha


def inject(denoiser: nn.Module, spec: AdapterSpec, *, seed: int, name: str = "default") -> dict[str, str]:
    """Freeze the denoiser and add a trainable fp32 adapter to it; returns module name -> half.

    One factor is zero, so the output stays equal to the bit. What is not zero is drawn by (seed, module name): a LoRA's A
    uniform in +-1/sqrt(fan in), LoHa and LoKr as peft draws them. Raises ModelError for modules that the kind cannot adapt.
    """
    weights = adaptable_weights(denoiser)
    modules = matching_modules(weights, spec)
    deep = next((m for m in modules if weights[m].dim() > 4), None) if spec.kind in ("loha", "lokr") else None
    if deep:
        raise ModelError(
            f"adapter.kind={spec.kind}: '{deep}' is a 3-D convolution", "adapter.kind=lora, or leave it out"
        )
    denoiser.requires_grad_(False)
    inject_by_peft(denoiser, peft_config(spec), name)
    for module_name, layer in adapter_layers(denoiser, name):
        for part in layer_parts(layer, name).values():
            part.data = part.data.to(torch.float32)
        _draw(layer, name, generator(seed, "lora", module_name))
    return modules


def inject_by_peft(denoiser: nn.Module, config: PeftConfig, name: str) -> None:
    """peft's layers in place, without a draw from the global state, now or in a forward pass."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, denoiser, adapter_name=name)
    for _, layer in adapter_layers(denoiser, name):
        layer.train(layer.get_base_layer().training)
        if name in getattr(layer, "module_dropout", {}):
            layer.module_dropout[name] = -1.0  # LoHa and LoKr ask at each pass whether a random number is above it


def _draw(layer: Any, name: str, random: torch.Generator) -> None:  # noqa: ANN401
    parts = layer_parts(layer, name)
    if next(iter(parts.values())).is_meta:
        return
    with torch.no_grad():
        if A in parts:
            uniform = torch.rand(parts[A].shape, generator=random)
            parts[A].copy_((2 * uniform - 1) * parts[A][0].numel() ** -0.5)
            parts[B].zero_()
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.initial_seed())
            layer.reset_adapter_parameters(name)


def adapter_layers(denoiser: nn.Module, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """(module name, layer) of every adapter layer, or of those that hold the named adapter."""
    for module_name, module in denoiser.named_modules():
        if isinstance(module, BaseTunerLayer) and (name is None or layer_parts(module, name)):
            yield module_name.replace(".base_layer", ""), module


def layer_parts(layer: Any, name: str) -> dict[str, nn.Parameter]:  # noqa: ANN401
    """A layer's live parameters of an adapter, by their names in files."""
    found = {part: holder[name] for part, place in _PLACES.items() if name in (holder := getattr(layer, place, {}))}
    return {part: getattr(value, "weight", value) for part, value in found.items()}


def adapter_parameters(denoiser: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """The adapter's live parameters by their names in files: MODULE.lora_A.weight [r, in], MODULE.lora_B.weight [out, r]."""
    return {
        f"{module_name}.{part}": parameter
        for module_name, layer in adapter_layers(denoiser, name)
        for part, parameter in layer_parts(layer, name).items()
    }


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Names of the adapters in a module, in order of loading."""
    return list(getattr(denoiser, "peft_config", {}))


def activity(denoiser: nn.Module) -> dict[int, tuple[list[str], bool]]:
    """Of each adapter layer (by identity): which adapters are summed in a forward pass, and whether all are switched off."""
    tuners: list[Any] = [m for m in denoiser.modules() if isinstance(m, BaseTunerLayer)]
    return {id(layer): (list(layer.active_adapters), bool(layer.disable_adapters)) for layer in tuners}


def activate(denoiser: nn.Module, before: dict[int, tuple[list[str], bool]], name: str | None = None) -> None:
    """What was active before is active again, and the named adapter with it; nothing that was switched off comes on."""
    for layer in [m for m in denoiser.modules() if isinstance(m, BaseTunerLayer)]:
        active, off = before.get(id(layer), ([], False))
        mine = [name] if name is not None and layer_parts(layer, name) else []
        kept = [each for each in active if layer_parts(layer, each)]
        frozen = {id(p): p.requires_grad for p in layer.parameters()}
        layer.enable_adapters(bool(mine) or not off)
        layer.set_adapter([*([] if off and mine else kept), *mine])
        for parameter in layer.parameters():
            parameter.requires_grad_(frozen[id(parameter)])


def set_scale(denoiser: nn.Module, name: str, strengths: dict[str, float]) -> None:
    """Scale an adapter by half: 1 as trained, 0 off; a half that is not named stays."""
    for module_name, layer in adapter_layers(denoiser, name):
        strength = strengths.get(half_of(module_name))
        if strength is None:
            continue
        trained: dict[str, float] = layer.__dict__.setdefault("trained_scales", {})
        trained.setdefault(name, layer.scaling[name])
        magnitudes = getattr(layer, MAGNITUDE, {})
        if name in magnitudes:
            # A DoRA's scale stands within its norm, so what its strength scales is what it adds.
            if not magnitudes[name].__dict__.get("strength_is_set"):
                magnitudes[name].register_forward_hook(lambda module, _args, output: output * module.strength)
                magnitudes[name].strength_is_set = True
            magnitudes[name].strength = strength
        else:
            layer.scaling[name] = trained[name] * strength


def remove(denoiser: nn.Module, name: str) -> None:
    """Take an adapter out, whole or half made; with the last one gone, the original modules stand in their places again."""
    before = activity(denoiser)
    tuners: list[tuple[str, Any]] = [(p, m) for p, m in denoiser.named_modules() if isinstance(m, BaseTunerLayer)]
    for path, layer in tuners:
        if layer_parts(layer, name):
            layer.delete_adapter(name)
            layer.__dict__.get("trained_scales", {}).pop(name, None)
        if not any(getattr(layer, place, {}) for place in _PLACES.values()):
            parent_name, _, child = path.rpartition(".")
            setattr(denoiser.get_submodule(parent_name), child, layer.base_layer)
    configs = getattr(denoiser, "peft_config", {})
    configs.pop(name, None)
    if not configs:
        denoiser.__dict__.pop("peft_config", None)
    activate(denoiser, {key: ([each for each in active if each != name], off) for key, (active, off) in before.items()})
