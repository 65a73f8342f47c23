"""An adapter written for another program: names, scale, header, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal

from svdtrain.adapters import formats
from svdtrain.adapters.container import DTYPES, encoded, write_container
from svdtrain.adapters.files import CONFIG
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from svdtrain.adapters.container import Array
    from svdtrain.adapters.files import AdapterFile

Metadata = Literal["minimal", "full", "none"]
_IMPLEMENTATION = {formats.COMFYUI: "https://github.com/Stability-AI/generative-models"}


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
    if to == formats.DIFFUSERS and kind not in ("lora", "dora", "lokr"):
        names = {"loha": "LoHa", "mixed": "mixed kinds"}
        raise ModelError(f"to=diffusers: diffusers reads no {names[kind]}", "make it a LoRA: adapter to-lora")
    tensors = formats.written(file.layers, to, file.layout, file.component)
    config = formats.peft_config(file.layers, file.settings)
    header = dict(file.metadata) if metadata == "full" else {}
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
