"""Adapters on stock diffusers pipelines: load, scale, take out again. The three functions of the public API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from peft import inject_adapter_in_model

from svdtrain.adapters.files import read_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.inject import activate, adapter_names, adapter_parameters, modules_of, remove, set_scale
from svdtrain.adapters.targets import adaptable_modules
from svdtrain.foundation.errors import ModelError, UsageError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline
    from torch import nn


def load_adapter(
    pipe: DiffusionPipeline | nn.Module,
    path: str | Path,
    strength: float = 1.0,
    *,
    spatial: float | None = None,
    temporal: float | None = None,
    check_base: bool = True,
) -> str:
    """Put an adapter file (or a run's adapter) on a stock pipeline, beside those already there; returns its name.

    `strength` scales it (1.0 as trained, 0.0 the base), `spatial` and `temporal` each half alone. Nothing is loaded unless
    every tensor finds its place: raises ModelError for a file that does not fit, or was made for another base.
    """
    denoiser = denoiser_of(pipe)
    file = read_adapter(path)
    if check_base and file.info.base_fingerprint:
        difference = differences(file.info.base_fingerprint, fingerprint(denoiser))
        if difference:
            made_for = file.info.base or "another base"
            raise ModelError(
                f"{path}: made for {made_for}, and this model has {difference}",
                "load it on the base it was trained on (or pass check_base=False if you know better)",
            )
    name = f"adapter_{sum(1 for _ in adapter_names(denoiser))}"
    while name in adapter_names(denoiser):
        name += "_"
    modules = sorted({key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in file.tensors})
    _check_modules(denoiser, modules, path)
    was_active = adapter_names(denoiser)
    file.config.target_modules = modules
    inject_adapter_in_model(file.config, denoiser, adapter_name=name)
    try:
        _fill(denoiser, name, file.tensors, path)
    except ModelError:
        remove(denoiser, name)
        raise
    activate(denoiser, [*was_active, name])
    set_strength(pipe, strength, spatial=spatial, temporal=temporal, name=name)
    return name


def set_strength(
    pipe: DiffusionPipeline | nn.Module,
    strength: float = 1.0,
    *,
    spatial: float | None = None,
    temporal: float | None = None,
    name: str | None = None,
) -> None:
    """Scale a loaded adapter (all of them without a name): 1.0 as trained, 0.0 the base."""
    strengths = {
        "spatial": strength if spatial is None else spatial,
        "temporal": strength if temporal is None else temporal,
    }
    for half, value in strengths.items():
        if not math.isfinite(value):
            raise UsageError(f"{half} strength is {value}", "a strength is a finite number, 1.0 as trained")
    denoiser = denoiser_of(pipe)
    for each in _named(denoiser, name):
        set_scale(denoiser, each, strengths)


def unload_adapter(pipe: DiffusionPipeline | nn.Module, name: str | None = None) -> None:
    """Take an adapter (all of them without a name) out; without any, the pipeline is bit for bit the base again."""
    denoiser = denoiser_of(pipe)
    for each in _named(denoiser, name):
        remove(denoiser, each)
    activate(denoiser, adapter_names(denoiser))


def denoiser_of(pipe: Any) -> nn.Module:  # noqa: ANN401
    """The module that carries adapters: a pipeline's unet or transformer, or the module itself."""
    if isinstance(pipe, torch.nn.Module):
        return pipe
    for part in ("unet", "transformer"):
        if getattr(pipe, part, None) is not None:
            return getattr(pipe, part)
    raise UsageError(f"{type(pipe).__name__} has neither a unet nor a transformer", "give a diffusers video pipeline")


def _named(denoiser: nn.Module, name: str | None) -> list[str]:
    loaded = adapter_names(denoiser)
    if name is None:
        return loaded
    if name not in loaded:
        raise UsageError(f"no adapter '{name}' is loaded", nearest(name, loaded))
    return [name]


def _check_modules(denoiser: nn.Module, modules: list[str], path: str | Path) -> None:
    present = {name.replace(".base_layer", "") for name in adaptable_modules(denoiser)}
    missing = [module for module in modules if module not in present]
    if missing:
        counts = {half: len(names) for half, names in modules_of(missing).items()}
        raise ModelError(
            f"{path}: {len(missing)} of its {len(modules)} modules are not in this model {counts}, first '{missing[0]}'",
            "it was made for another kind of model, or its names are in another program's format",
        )


def _fill(denoiser: nn.Module, name: str, tensors: dict[str, torch.Tensor], path: str | Path) -> None:
    parameters = adapter_parameters(denoiser, name)
    odd = sorted(set(parameters) ^ set(tensors))
    if odd:
        raise ModelError(
            f"{path}: {len(odd)} tensors are missing or superfluous, first '{odd[0]}'", "the file is damaged"
        )
    for key, parameter in parameters.items():
        if parameter.shape != tensors[key].shape:
            shapes = f"{list(tensors[key].shape)} in the file, {list(parameter.shape)} in the model"
            raise ModelError(f"{path}: '{key}' is {shapes}", "rank or base differ from what its settings say")
    for key, parameter in parameters.items():
        parameter.data = tensors[key].to(parameter.device, torch.float32).clone()
        parameter.requires_grad_(False)
