"""Adapters on stock diffusers pipelines: load, scale, take out again. The three functions of the public API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from torch import nn

from svdtrain.adapters.files import read_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.formats import kinds_of
from svdtrain.adapters.formats import peft_config as peft_values
from svdtrain.adapters.inject import (
    activate,
    activity,
    adapter_layers,
    adapter_names,
    inject_by_peft,
    layer_parts,
    remove,
    set_scale,
)
from svdtrain.adapters.layer import MAGNITUDE
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.targets import adaptable_weights
from svdtrain.foundation.errors import ModelError, UsageError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline

    from svdtrain.adapters.files import AdapterFile

_UNFROZEN = "_unfrozen_before_adapters"


def load_adapter(
    pipe: DiffusionPipeline | nn.Module,
    path: str | Path,
    strength: float = 1.0,
    spatial: float | None = None,
    temporal: float | None = None,
    *,
    check_base: bool = True,
) -> str:
    """Put an adapter file (or a run's adapter) on a stock pipeline, beside those already there; returns its name.

    `strength` scales it (1.0 as trained, 0.0 the base), `spatial` and `temporal` each half alone. Nothing is loaded unless
    every tensor finds its place: raises ModelError for a file that does not fit, or was made for another base.
    """
    strengths = _strengths(strength, spatial, temporal)
    denoiser = denoiser_of(pipe)
    file = read_adapter(path, layout_of(denoiser))
    if check_base and file.info.base_fingerprint:
        difference = differences(file.info.base_fingerprint, fingerprint(denoiser))
        if difference:
            made_for = file.info.base or "another base"
            raise ModelError(
                f"{path}: made for {made_for}, and this model has {difference}",
                "load it on the base it was trained on (or pass check_base=False if you know better)",
            )
    _refuse_company(denoiser, file, path)
    before, loaded = activity(denoiser), adapter_names(denoiser)
    if not loaded:
        # peft freezes the base, and on a CPU torch rounds differently for weights that want gradients.
        denoiser.__dict__[_UNFROZEN] = [p for p in denoiser.parameters() if p.requires_grad]
    name = f"adapter_{len(loaded)}"
    while name in loaded:
        name += "_"
    try:
        inject_by_peft(denoiser, _config(file), name)
        _fill(denoiser, name, file)
        activate(denoiser, before, name)
        set_scale(denoiser, name, strengths)
    except BaseException:
        remove(denoiser, name)
        _give_back(denoiser)
        raise
    return name


def set_strength(
    pipe: DiffusionPipeline | nn.Module,
    strength: float | None = None,
    *,
    spatial: float | None = None,
    temporal: float | None = None,
    name: str | None = None,
) -> None:
    """Scale a loaded adapter (all of them without a name): 1.0 as trained, 0.0 the base. A half that is not named stays."""
    strengths = _strengths(strength, spatial, temporal)
    denoiser = denoiser_of(pipe)
    for each in _named(denoiser, name):
        set_scale(denoiser, each, strengths)


def unload_adapter(pipe: DiffusionPipeline | nn.Module, name: str | None = None) -> None:
    """Take an adapter (all of them without a name) out; without any, the pipeline is bit for bit the base again."""
    denoiser = denoiser_of(pipe)
    for each in _named(denoiser, name):
        remove(denoiser, each)
    _give_back(denoiser)


def _give_back(denoiser: nn.Module) -> None:
    """Without adapters, the base's weights want the gradients they wanted before."""
    if not adapter_names(denoiser):
        for parameter in denoiser.__dict__.pop(_UNFROZEN, []):
            parameter.requires_grad_(True)


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


def _strengths(strength: float | None, spatial: float | None, temporal: float | None) -> dict[str, float]:
    named = {
        "spatial": strength if spatial is None else spatial,
        "temporal": strength if temporal is None else temporal,
    }
    strengths = {half: value for half, value in named.items() if value is not None}
    for half, value in strengths.items():
        if not math.isfinite(value):
            raise UsageError(f"{half} strength is {value}", "a strength is a finite number, 1.0 as trained")
    return strengths


def _refuse_company(denoiser: nn.Module, file: AdapterFile, path: str | Path) -> None:
    """What peft would compute otherwise than it was trained, or could not put in place."""
    to_lora = "python -m svdtrain adapter to-lora FILE base=FOLDER out=NEW"
    kind, weights = kinds_of(file.layers), adaptable_weights(denoiser)
    if kind == "mixed":
        kinds = ", ".join(sorted({layer.kind for layer in file.layers.values()}))
        raise ModelError(f"{path}: layers of several kinds ({kinds}), and peft holds one kind an adapter", to_lora)
    deep = next((m for m in file.layers if weights[m].dim() > 4), None) if kind in ("loha", "lokr") else None
    if deep:
        raise ModelError(f"{path}: '{deep}' is a 3-D convolution, for which peft has no {kind}", to_lora)
    if gone := next((module for module in file.layers if weights[module].is_meta), None):
        message = f"{path}: the weights of '{gone}' are offloaded, and what is loaded now would be, too"
        raise ModelError(message, "load adapters first, then call enable_sequential_cpu_offload")
    there = {
        module: MAGNITUDE in layer_parts(layer, each)
        for each in adapter_names(denoiser)
        for module, layer in adapter_layers(denoiser, each)
    }
    shared = next((m for m, layer in file.layers.items() if m in there and (there[m] or layer.kind == "dora")), None)
    if shared:
        # peft computes a DoRA from what stands before it: beside another it would not be what was trained.
        message = f"{path}: '{shared}' has another adapter, and a DoRA keeps no company"
        raise ModelError(message, f"make the DoRA a LoRA: {to_lora}")


def _config(file: AdapterFile) -> PeftConfig:
    # What peft would build of a LoKr is replaced by what the file has, so any settings will do.
    values = peft_values(file.layers, {"decompose_factor": -1, "r": 1, **file.settings})
    kinds = {"LORA": LoraConfig, "LOHA": LoHaConfig, "LOKR": LoKrConfig}
    ignored = ("peft_type", "base_model_name_or_path", "task_type", "inference_mode")
    return kinds[values["peft_type"]](**{key: value for key, value in values.items() if key not in ignored})


def _fill(denoiser: nn.Module, name: str, file: AdapterFile) -> None:
    """Put the file's tensors, and no others, where peft has made room.

    They want gradients as they did in training: on a CPU torch rounds otherwise without, and frames would differ.
    """
    for module, layer in adapter_layers(denoiser, name):
        source = file.layers[module]
        made = layer_parts(layer, name)
        device = next(iter(made.values())).device
        for part in made.keys() - source.parts.keys():
            del getattr(layer, part)[name]
        for part, array in source.parts.items():
            value = torch.from_numpy(array.copy()).to(device, torch.float32)
            if part in made:
                made[part].data = value.reshape(made[part].shape) if part == MAGNITUDE else value
            else:
                getattr(layer, part)[name] = nn.Parameter(value)
        layer.scaling[name] = source.scale
