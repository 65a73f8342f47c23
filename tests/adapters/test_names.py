"""Names of modules between programs, on SVD-XT at its full size: nothing lost, nothing twice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.layouts import published
from svdtrain.adapters import formats
from svdtrain.adapters.container import Container, write_container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile, read_adapter
from svdtrain.adapters.layer import Layer, lora
from svdtrain.adapters.layout import Layout, packaged_layouts
from svdtrain.adapters.names import spellings, stability_names
from svdtrain.adapters.programs import comfyui_patches
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.adapters.targets import half_of
from svdtrain.foundation.errors import ModelError

ATTENTION = r".*\.(temporal_)?transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"

PLAIN = [to for to in formats.FORMATS if to != formats.MOTION_LORA]


@pytest.fixture(scope="module")
def full() -> Layout:
    return packaged_layouts()["svd"]


@pytest.fixture(scope="module")
def attention(full: Layout) -> dict[str, Layer]:
    """Random LoRA of rank 4 and alpha 8 on all 256 attention matrices."""
    random = np.random.default_rng(0)
    layers: dict[str, Layer] = {}
    for module, (rows, columns) in ((m, s) for m, s in full.shapes.items() if re.fullmatch(ATTENTION, m)):
        down, up = random.standard_normal((4, columns)), random.standard_normal((rows, 4))
        layers[module] = Layer(lora(down.astype(np.float32), up.astype(np.float32)).parts, scale=2.0)
    return layers


def file_of(layers: dict[str, Layer], layout: Layout) -> AdapterFile:
    return AdapterFile(Path("a"), dict(sorted(layers.items())), AdapterInfo(), layout=layout)


def test_all_1428_tensors_have_a_name_of_their_own() -> None:
    names = list(published("svd").state_dict())
    native = stability_names(names)
    assert len(names) == len(set(native.values())) == 1428
    assert all(
        re.match(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\.\d", n) for n in native.values()
    )


@pytest.mark.parametrize(
    ("module", "native"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("conv_out", "out.2"),
        (
            "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q",
            "input_blocks.1.1.time_stack.0.attn1.to_q",
        ),
        ("down_blocks.1.downsamplers.0.conv", "input_blocks.6.0.op"),
        ("down_blocks.2.resnets.1.spatial_res_block.conv2", "input_blocks.8.0.out_layers.3"),
        ("mid_block.resnets.1.temporal_res_block.time_emb_proj", "middle_block.2.time_stack.emb_layers.1"),
        ("mid_block.attentions.0.time_pos_embed.linear_2", "middle_block.1.time_pos_embed.2"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        (
            "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0",
            "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0",
        ),
        ("up_blocks.3.resnets.0.spatial_res_block.conv_shortcut", "output_blocks.9.0.skip_connection"),
    ],
)
def test_names_in_stabilitys_code(full: Layout, module: str, native: str) -> None:
    assert full.native[module] == native
    for spelling in (native, native.replace(".", "_"), module.replace(".", "_"), module):
        assert full.spellings[spelling] == module


def test_no_two_modules_share_a_spelling(full: Layout) -> None:
    assert set(full.spellings.values()) == set(full.shapes)
    assert spellings(["a.b_c", "a_b.c"]) == {"a.b_c": "a.b_c", "a_b.c": "a_b.c"}


def in_comfyui(path: Path, layout: Layout) -> tuple[int, int, int]:
    """(modules loaded, of them temporal, keys left unread)"""
    patches, unread = comfyui_patches(Container(path), layout)
    return len(patches), sum(half_of(module) == "temporal" for module in patches), len(unread)


@pytest.mark.parametrize(
    ("spelled", "loaded"),
    [
        ("diffusion_model.{native}.lora_{way}.weight", (256, 128, 0)),
        ("lora_unet_{native_}.lora_{way}.weight", (256, 128, 0)),
        ("unet.{module}.lora_{AB}.weight", (0, 0, 512)),
        ("{module}.lora_{AB}.weight", (0, 0, 512)),
        ("base_model.model.{module}.lora_{AB}.weight", (0, 0, 512)),
        ("lora_unet_{module_}.lora_{way}.weight", (128, 0, 256)),
    ],
)
def test_what_comfyui_finds_in_a_file_of_full_size(
    full: Layout, attention: dict[str, Layer], tmp_path: Path, spelled: str, loaded: tuple[int, int, int]
) -> None:
    """design/ecosystem.md 0.3: why a file `has no effect`."""
    tensors: dict[str, np.ndarray] = {}
    for module, layer in attention.items():
        words = {"module": module, "native": full.native[module]}
        words |= {f"{name}_": text.replace(".", "_") for name, text in words.items()}
        for part, way, letter in (("lora_A.weight", "down", "A"), ("lora_B.weight", "up", "B")):
            tensors[spelled.format(**words, way=way, AB=letter)] = layer.parts[part][:1, :1]
    write_container(tmp_path / "a.safetensors", tensors, {})
    assert in_comfyui(tmp_path / "a.safetensors", full) == loaded


def test_export_to_comfyui_is_whole_and_equal_to_the_bit(
    full: Layout, attention: dict[str, Layer], tmp_path: Path
) -> None:
    path = write_adapter(tmp_path / "a.safetensors", file_of(attention, full), formats.COMFYUI, "fp32")
    patches, unread = comfyui_patches(Container(path), full)
    assert (len(patches), unread) == (256, [])
    assert max(float(abs(patches[module]() - layer.delta()).max()) for module, layer in attention.items()) == 0.0


def test_without_alpha_a_scale_of_2_is_lost(full: Layout, attention: dict[str, Layer], tmp_path: Path) -> None:
    module, layer = next(iter(attention.items()))
    parts = {f"diffusion_model.{full.native[module]}.{part}": array for part, array in layer.parts.items()}
    write_container(tmp_path / "a.safetensors", parts, {})
    patches, _ = comfyui_patches(Container(tmp_path / "a.safetensors"), full)
    assert np.allclose(patches[module]() * 2, layer.delta(), rtol=1e-5)


@pytest.mark.parametrize("first", PLAIN)
@pytest.mark.parametrize("second", PLAIN)
def test_there_and_back_is_the_identity(
    full: Layout, attention: dict[str, Layer], tmp_path: Path, first: str, second: str
) -> None:
    few = dict(list(attention.items())[::16])
    start = write_adapter(tmp_path / "a.safetensors", file_of(few, full), first, "fp16")
    across = write_adapter(tmp_path / "b.safetensors", read_adapter(start), second, "fp16")
    back = write_adapter(tmp_path / "c.safetensors", read_adapter(across), first, "fp16")
    assert back.read_bytes().replace(b'"c"', b'"a"') == start.read_bytes()


@pytest.mark.parametrize(
    "spelled",
    [
        "{module}.lora_A.default.weight {module}.lora_B.default.weight",
        "unet.{module}.lora.down.weight unet.{module}.lora.up.weight",
        "{processor}_lora.down.weight {processor}_lora.up.weight",
        "model.diffusion_model.{native}.lora_A.weight model.diffusion_model.{native}.lora_B.weight",
        "lora_unet_{module_}.lora_down.weight lora_unet_{module_}.lora_up.weight lora_unet_{module_}.alpha",
        "lycoris_{module_}.lora_down.weight lycoris_{module_}.lora_up.weight lycoris_{module_}.alpha",
        "lora_unet_{native_}.lora_down.weight lora_unet_{native_}.lora_up.weight lora_unet_{native_}.alpha",
    ],
)
def test_foreign_spellings_are_read(full: Layout, attention: dict[str, Layer], tmp_path: Path, spelled: str) -> None:
    few = dict(list(attention.items())[::16])
    tensors: dict[str, np.ndarray] = {}
    for module, layer in few.items():
        processor = module.removesuffix(".0").replace(".to_", ".processor.to_") if ".to_" in module else module
        words = {"module": module, "native": full.native[module], "processor": processor}
        words |= {f"{name}_": text.replace(".", "_") for name, text in words.items()}
        keys = spelled.format(**words).split()
        values = [layer.parts["lora_A.weight"], layer.parts["lora_B.weight"], np.array(8.0, np.float32)]
        tensors |= dict(zip(keys, values, strict=False))
    write_container(tmp_path / "a.safetensors", tensors, {})
    read = read_adapter(tmp_path / "a.safetensors")
    assert set(read.layers) == set(few)
    wanted = 2.0 if "alpha" in spelled else 1.0
    assert {layer.scale for layer in read.layers.values()} == {wanted}


def test_a_flat_name_of_an_unknown_model_asks_for_its_base(tmp_path: Path) -> None:
    tensors = {f"lora_unet_blocks_0_to_q.lora_{way}.weight": np.ones((2, 2), np.float32) for way in ("up", "down")}
    write_container(tmp_path / "a.safetensors", tensors, {})
    with pytest.raises(ModelError, match="whose module is"):
        read_adapter(tmp_path / "a.safetensors")
