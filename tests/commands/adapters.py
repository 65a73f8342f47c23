"""Adapters for the embedded model, made in a moment: random, of every kind, in its layout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from svdtrain.adapters import formats
from svdtrain.adapters.container import write_container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile, save_adapter
from svdtrain.adapters.fingerprint import fingerprint_on_disk
from svdtrain.adapters.layer import MAGNITUDE, A, B, Layer
from svdtrain.adapters.layout import BaseWeights, base_folder
from svdtrain.adapters.spec import AdapterInfo

NANO = BaseWeights.of_pipeline(base_folder("nano"))
INFO = AdapterInfo(
    model="nano",
    family="svd",
    base="nano",
    base_fingerprint=fingerprint_on_disk(NANO),
    recipe="style_lora",
    source="",
    data_source="/home/someone/secret clips",
    kind="lora",
    rank="4",
    alpha="4",
    resolution="64x64",
    fps="7",
    motion_bucket="20-200",
    steps="120",
    dataset="abc",
    results='{"held_out_loss_ratio": 0.42, "by_noise_level": {"0.5": 0.4, "10": 0.44}, "step": 120}',
    version="0.1.0",
)
ATTENTION = r".*transformer_blocks\.\d+\.attn1\.(to_q|to_v)"


def random_layers(kind: str = "lora", seed: int = 0, rank: int = 4, scale: float = 2.0) -> dict[str, Layer]:
    """Small changes on q and v of both halves."""
    random = np.random.default_rng(seed)
    layers: dict[str, Layer] = {}
    for module, (out, into) in ((m, s) for m, s in NANO.layout.shapes.items() if re.fullmatch(ATTENTION, m)):
        shapes = {
            "lora": {A: (rank, into), B: (out, rank)},
            "dora": {A: (rank, into), B: (out, rank)},
            "loha": {
                "hada_w1_a": (out, rank),
                "hada_w1_b": (rank, into),
                "hada_w2_a": (out, rank),
                "hada_w2_b": (rank, into),
            },
            "lokr": {"lokr_w1": (8, 8), "lokr_w2_a": (out // 8, 2), "lokr_w2_b": (2, into // 8)},
        }[kind]
        parts = {name: (0.1 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
        if kind == "dora":
            parts[MAGNITUDE] = (1.1 * np.linalg.norm(NANO.weight(module), axis=1)).astype(np.float32)
        layers[module] = Layer(parts, scale)
    return layers


def adapter_file(layers: dict[str, Layer] | None = None, **info: str) -> AdapterFile:
    """In memory."""
    made = dict(sorted((layers or random_layers()).items()))
    return AdapterFile(Path("a"), made, replace(INFO, **info), layout=NANO.layout)


def save_run(folder: Path, layers: dict[str, Layer] | None = None) -> Path:
    """RUN/adapter and run.json, as fit leaves them: scales in the settings, not in the weights."""
    made = layers or random_layers()
    config = formats.peft_config(made)
    alpha = {name: int(config[name] * next(iter(made.values())).scale) for name in ("lora_alpha",) if name in config}
    tensors = {f"{module}.{name}": part for module, layer in made.items() for name, part in layer.parts.items()}
    save_adapter(folder / "adapter", tensors, config | alpha, INFO)
    (folder / "run.json").write_text("{}")
    return folder


def save_as(path: Path, to: str, layers: dict[str, Layer] | None = None, **info: str) -> Path:
    """In a program's format."""
    return write_adapter(path, adapter_file(layers, **info), to, "fp32")


def rewritten(path: Path, new: Path, change: object) -> Path:
    """A copy of a file whose tensors (name -> array) and metadata a function changes in place."""
    from svdtrain.adapters.container import Container

    old = Container(path)
    tensors, metadata = {name: old.array(name) for name in old.entries}, dict(old.metadata)
    change(tensors, metadata)  # type: ignore[operator]
    write_container(new, tensors, metadata)
    return new


def save_world(root: Path) -> Path:
    """A run, files of every format and kind, a second adapter, and a run that kept its saves."""
    save_run(root / "run")
    for name in ("diffusers", "comfyui", "kohya"):
        save_as(root / f"{name}.safetensors", name)
    save_as(root / "second.safetensors", "diffusers", random_layers(seed=5, rank=2))
    save_as(root / "dora.safetensors", "diffusers", random_layers("dora"))
    save_as(root / "loha.safetensors", "comfyui", random_layers("loha"))
    save_as(root / "lokr.safetensors", "comfyui", random_layers("lokr"))
    for step in (20, 40, 60):
        save_run(root / "steps" / "x", random_layers(seed=step))
        (root / "steps" / "adapters").mkdir(exist_ok=True)
        (root / "steps" / "x" / "adapter").rename(root / "steps" / "adapters" / f"step-{step:06d}")
    return root
