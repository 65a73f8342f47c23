"""An adapter written for another program: names, scale, header, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal

import numpy as np

from svdtrain.adapters import formats
from svdtrain.adapters.container import DTYPES, encoded, write_container
from svdtrain.adapters.files import CONFIG
from svdtrain.adapters.layer import MAGNITUDE, A, B
from svdtrain.adapters.names import motion_lora_stem
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from svdtrain.adapters.container import Array
    from svdtrain.adapters.files import AdapterFile
    from svdtrain.adapters.layer import Layer

Metadata = Literal["minimal", "full", "none"]
_IMPLEMENTATION = {
    formats.COMFYUI: "https://github.com/Stability-AI/generative-models",
    formats.MOTION_LORA: "https://github.com/guoyww/AnimateDiff",
}
_KINDS = {formats.DIFFUSERS: ("lora", "dora", "lokr"), formats.MOTION_LORA: ("lora",)}
"""Where not all."""
_READERS = {formats.DIFFUSERS: "diffusers reads", formats.MOTION_LORA: "a MotionLoRA's programs read"}
_SPELLED = {"dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "mixed": "mixed kinds"}


def write_adapter(
    path: Path,
    file: AdapterFile,
    to: str,
    dtype: str,
    *,
    architecture: str = "",
    metadata: Metadata = "minimal",
    title: str = "",
) -> Path:
    """Write `path` (and, for peft, adapter_config.json beside it), whole or not at all; returns `path`.

    Scales are folded into the weights, so that alpha = rank wherever it is read. Raises ModelError for an adapter that the
    format cannot hold.
    """
    kind = formats.kinds_of(file.layers)
    if file.layout is None and {to, file.format} not in ({to}, {formats.PEFT, formats.DIFFUSERS}):
        message = f"to={to}: {file.path} is for a model that svdtrain does not know by its modules' names"
        raise ModelError(message, "base=FOLDER of that model")
    if kind not in _KINDS.get(to, (kind,)):
        raise ModelError(f"to={to}: {_READERS[to]} no {_SPELLED[kind]}", "make it a LoRA: adapter to-lora")
    tensors = _tensors(file, to)
    config = redacted(formats.peft_config(file.layers, file.settings))
    header = redacted(dict(file.metadata)) if metadata == "full" else {}
    header |= {"format": "pt"}
    if to in (formats.DIFFUSERS, formats.PEFT):
        prefix = f"{file.component}." if to == formats.DIFFUSERS else ""
        stated = {f"{prefix}{key}": value for key, value in config.items() if value is not None}
        header["lora_adapter_metadata"] = json.dumps(stated, sort_keys=True)
    if metadata != "none":
        architecture = architecture or file.info.architecture
        header |= file.info.header(private=metadata == "full")
        header |= model_spec(file, to, architecture, title or path.stem, tensors, dtype)
        header |= training_header(architecture, kind, config)
    if to == formats.PEFT:
        write_atomic(path.parent / CONFIG, json.dumps(config, indent=2, sort_keys=True))
    write_container(path, tensors, header, DTYPES[dtype])
    return path


def _tensors(file: AdapterFile, to: str) -> dict[str, Array]:
    """By their names in a format, scales folded in. Raises ModelError where a program cannot read such an adapter at all."""
    tensors: dict[str, Array] = {}
    for module, layer in file.layers.items():
        folded = layer.folded()
        if to in (formats.PEFT, formats.DIFFUSERS):
            prefix = formats.PEFT_PREFIX if to == formats.PEFT else f"{file.component}."
            tensors |= {f"{prefix}{module}.{name}": _as_peft(folded, name) for name in folded.parts}
        elif to == formats.MOTION_LORA:
            stem = _motion_lora_stem(file, module)
            tensors |= {f"{stem}.down.weight": folded.parts[A], f"{stem}.up.weight": folded.parts[B]}
        else:
            stem, spelled = _kohya_stem(file, module, to), {A: "lora_down.weight", B: "lora_up.weight"}
            tensors |= {f"{stem}.{spelled.get(part, part)}": array for part, array in folded.parts.items()}
            tensors[f"{stem}.alpha"] = np.array(float(layer.rank or 1), np.float32)
    return tensors


def _as_peft(layer: Layer, name: str) -> Array:
    """A part in the shape in which peft has it: a convolution's magnitude is [1, out, 1, …]."""
    part, axes = layer.parts[name], layer.parts[A].ndim if A in layer.parts else 2
    return part.reshape(1, -1, *(1 for _ in range(axes - 2))) if name == MAGNITUDE and axes > 2 else part


def _kohya_stem(file: AdapterFile, module: str, to: str) -> str:
    """Of ComfyUI's and kohya's keys, which end alike."""
    if file.layers[module].kind == "dora":
        raise ModelError(f"to={to}: programs disagree on what a DoRA file means", "make it a LoRA: adapter to-lora")
    name = (file.layout.native if file.layout else {}).get(module)
    if to == formats.KOHYA:
        return f"lora_{file.component}_{(name or module).replace('.', '_')}"
    if name is None:
        message = f"to=comfyui: ComfyUI has no model with a module '{module}'"
        raise ModelError(message, "to=diffusers is what its wrappers around diffusers read")
    return f"diffusion_model.{name}"


def _motion_lora_stem(file: AdapterFile, module: str) -> str:
    if stem := motion_lora_stem(module):
        return stem
    if not any(".motion_modules." in name for name in (file.layout.shapes if file.layout else file.layers)):
        message = f"to=motion_lora: '{module}' is of a model that has no motion modules"
        raise ModelError(message, "to=diffusers, to=peft and to=kohya hold every model's modules")
    message = f"to=motion_lora: '{module}' is no attention of a motion module, and nothing else has a place there"
    raise ModelError(message, "take out the rest: adapter slice FILE 'pattern=.*motion_modules.*attn.*' out=NEW")


def model_spec(
    file: AdapterFile, to: str, architecture: str, title: str, tensors: Mapping[str, Array], dtype: str
) -> dict[str, str]:
    """ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec): its required fields, and those that are known."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(encoded(tensors[name], DTYPES[dtype] if tensors[name].ndim else "F32"))
    made = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture or 'unknown'}/lora",
        "implementation": _IMPLEMENTATION.get(to, "diffusers"),
        "title": title,
        "resolution": file.info.resolution,
        "hash_sha256": f"0x{digest.hexdigest()}",
        "description": file.info.recipe,
        "tags": "video",
    }
    return {f"modelspec.{name}": text for name, text in made.items() if text}


def training_header(architecture: str, kind: str, config: Mapping[str, object]) -> dict[str, str]:
    """The five entries by which kohya's tools, and those that read their files, know an adapter."""
    rank = str(config["r"])
    return {
        "ss_base_model_version": architecture or "unknown",
        "ss_network_module": "networks.lora" if kind in ("lora", "dora") else "lycoris.kohya",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": json.dumps({} if kind == "lora" else {"algo": kind}),
    }
