"""The packaged layouts: those of diffusers' classes at published sizes, and the ones that files are recognised by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scripts.layouts import FOLDER, PUBLISHED, published, text_of
from svdtrain.adapters import formats
from svdtrain.adapters.container import Container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile, read_adapter
from svdtrain.adapters.layer import A, B, Layer
from svdtrain.adapters.layout import Layout, layout_of, packaged_layouts
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.adapters.targets import half_of
from svdtrain.foundation.errors import ModelError

MILLIONS = {
    "animatediff": 1312.7,
    "cogvideox_2b": 1693.8,
    "cogvideox_5b": 5570.3,
    "cogvideox_5b_i2v": 5570.5,
    "i2vgen_xl": 1420.5,
    "svd": 1524.6,
    "unet3d": 1411.2,
}
"""Parameters of the published weights (design/svd_math.md 3)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layout_is_that_of_the_class_at_its_published_size(name: str) -> None:
    denoiser = published(name)
    assert round(sum(p.numel() for p in denoiser.parameters()) / 1e6, 1) == MILLIONS[name]
    assert (FOLDER / f"{name}.json").read_text() == text_of(layout_of(denoiser))


def test_every_layout_is_made_by_the_script() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(PUBLISHED) == set(MILLIONS)


def saved(path: Path, layout: Layout, modules: Callable[[str], bool], info: AdapterInfo) -> Path:
    """A LoRA of rank 1 on these modules."""
    layers = {
        module: Layer({A: np.ones((1, *shape[1:]), np.float32), B: np.ones((shape[0], 1), np.float32)})
        for module, shape in layout.shapes.items()
        if modules(module)
    }
    file = AdapterFile(path, layers, info, layout=layout, component=layout.component)
    return write_adapter(path, file, formats.DIFFUSERS, "fp32")


def attention(module: str) -> bool:
    return ".attn" in module


def spatial(module: str) -> bool:
    return ".attn1.to_q" in module and half_of(module) == "spatial"


RECOGNISED = [  # name of the layout, modules, what it is recognised as
    *((name, attention, name) for name in PUBLISHED if name != "cogvideox_5b_i2v"),
    ("cogvideox_5b", lambda module: module.startswith("transformer_blocks.0."), "cogvideox_5b"),
    (
        "cogvideox_5b_i2v",
        lambda module: module.startswith(("patch_embed", "transformer_blocks.0.")),
        "cogvideox_5b_i2v",
    ),
    ("animatediff", lambda module: spatial(module) or ".attn2.to_k" in module, "animatediff"),
    ("svd", spatial, "svd"),
]


@pytest.mark.parametrize(("name", "modules", "found"), RECOGNISED)
def test_files_are_recognised_by_names_and_sizes(
    name: str, modules: Callable[[str], bool], found: str, tmp_path: Path
) -> None:
    known = packaged_layouts()
    path = saved(tmp_path / "a.safetensors", known[name], modules, AdapterInfo())
    layout = formats.recognised(Container(path), formats.split_keys(Container(path).entries))
    assert layout is not None
    assert layout.shapes == known[found].shapes
    read = read_adapter(path)
    assert read.layout is not None
    assert (read.layout.shapes, read.component) == (known[found].shapes, known[found].component)


@pytest.mark.parametrize("name", ["svd", "unet3d", "i2vgen_xl", "animatediff"])
def test_the_header_decides_between_equals(name: str, tmp_path: Path) -> None:
    """Spatial q of the first attention has one name and one size in four models."""
    known = packaged_layouts()
    path = saved(tmp_path / "a.safetensors", known[name], spatial, AdapterInfo(family=name))
    read = read_adapter(path)
    assert read.layout is not None
    assert read.layout.shapes == known[name].shapes


def test_a_size_that_no_array_has_is_refused(tmp_path: Path) -> None:
    module = next(filter(attention, packaged_layouts()["svd"].shapes))
    entry = {"dtype": "BOOL", "shape": [2**40, 2**40], "data_offsets": [0, 0]}
    header = json.dumps({f"{module}.{part}": entry for part in (A, B)}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="is BOOL"):
        read_adapter(tmp_path / "a.safetensors")
