"""MotionLoRA files as the first AnimateDiff spells them: written and read, against diffusers' own converter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from svdtrain.adapters import formats
from svdtrain.adapters.container import Container, write_container
from svdtrain.adapters.coverage import coverage
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile, read_adapter
from svdtrain.adapters.layer import A, B, Layer
from svdtrain.adapters.layout import Layout, layout_of, packaged_layouts
from svdtrain.adapters.names import motion_lora_stem
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.cli import main
from svdtrain.foundation.errors import ModelError
from tests.adapters.test_programs import error, trained
from tests.tiny_denoisers import make

BLOCK = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0"
SPELLED = {
    "down_blocks.0.motion_modules.1.transformer_blocks.0.attn2.to_k": f"{BLOCK}.attention_blocks.1.processor.to_k_lora",
    "down_blocks.0.motion_modules.1.transformer_blocks.0.attn1.to_out.0": f"{BLOCK}.attention_blocks.0.processor.to_out_lora",
    "mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q": "mid_block.motion_modules.0.temporal_transformer"
    ".transformer_blocks.0.attention_blocks.0.processor.to_q_lora",
    "down_blocks.0.motion_modules.1.transformer_blocks.0.ff.net.2": None,
    "down_blocks.0.motion_modules.1.proj_in": None,
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q": None,
}


@pytest.mark.parametrize("module", SPELLED)
def test_spelling(module: str) -> None:
    assert motion_lora_stem(module) == SPELLED[module]


def test_all_168_attention_matrices_have_keys_of_their_own_and_come_back() -> None:
    shapes = packaged_layouts()["animatediff"].shapes
    stems = {module: motion_lora_stem(module) for module in shapes}
    made = {stem for stem in stems.values() if stem}
    assert len(made) == len([stem for stem in stems.values() if stem]) == 168  # design/svd_math.md 3.2
    for layout in (packaged_layouts()["animatediff"], None):
        assert all(formats.module_of(stem.removesuffix("_lora"), layout) == m for m, stem in stems.items() if stem)


def by_diffusers(path: Path) -> dict[str, torch.Tensor]:
    """The rule of scripts/convert_animatediff_motion_lora_to_diffusers.py (read at 03f101e)."""
    rules = ((".attention_blocks.0", ".attn1"), (".attention_blocks.1", ".attn2"), (".temporal_transformer", ""))
    converted: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(path).items():
        name = key
        for old, new in rules:
            name = name.replace(old, new)
        converted[f"unet.{name}"] = tensor
    return converted


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_written_then_converted_by_diffusers_is_what_was_trained(kind: str, tmp_path: Path) -> None:
    case = trained("motion_modules", kind)
    file = read_adapter(case.folder, layout_of(make("motion_modules")))
    assert {layer.scale for layer in file.layers.values()} != {1.0}
    path = write_adapter(tmp_path / "a.safetensors", file, formats.MOTION_LORA, "fp32")
    for module, layer in read_adapter(path, file.layout).layers.items():
        first = file.layers[module]
        wanted = first.scale * (first.parts[B].astype(np.float64) @ first.parts[A].astype(np.float64))
        assert layer.scale == 1
        assert np.allclose(layer.parts[B].astype(np.float64) @ layer.parts[A], wanted, rtol=0, atol=1e-6)
    pipe = diffusers.AnimateDiffPipeline(
        **dict.fromkeys(("vae", "text_encoder", "tokenizer", "motion_adapter", "scheduler")),  # type: ignore[arg-type]
        unet=make("motion_modules"),  # type: ignore[arg-type]
    )
    pipe.load_lora_weights(by_diffusers(path))
    assert error(pipe.unet, "motion_modules", case) < 1e-6


def ones(*keys: str) -> dict[str, np.ndarray]:
    return {key: np.ones((8, 2) if ".up." in key else (2, 8), np.float32) for key in keys}


@pytest.mark.parametrize(
    ("spelled", "module"),
    [
        (f"{BLOCK}.attention_blocks.1.processor.to_k_lora", "attn2.to_k"),
        (f"{BLOCK}.attention_blocks.0.processor.to_out_lora", "attn1.to_out.0"),
        (f"{BLOCK}.attention_blocks.0.to_out.processor.0_lora", "attn1.to_out.0"),
        (f"module.{BLOCK}.ff.net.0.processor.proj_lora", "ff.net.0.proj"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_trainers_write_is_read(spelled: str, module: str, known: bool, tmp_path: Path) -> None:
    name = f"down_blocks.0.motion_modules.1.transformer_blocks.0.{module}"
    write_container(tmp_path / "a.safetensors", ones(f"{spelled}.down.weight", f"{spelled}.up.weight"), {})
    read = read_adapter(tmp_path / "a.safetensors", Layout({name: (8, 8)}) if known else None)
    assert list(read.layers) == [name]
    assert read.format == formats.MOTION_LORA


def test_only_its_own_spelling_is_whole_to_its_programs(tmp_path: Path) -> None:
    layout = layout_of(make("motion_modules"))
    file = read_adapter(trained("motion_modules", "lora").folder, layout)
    for to in (formats.MOTION_LORA, formats.DIFFUSERS, formats.KOHYA):
        path = write_adapter(tmp_path / f"{to}.safetensors", file, to, "fp32")
        found = coverage(formats.MOTION_LORA, Container(path), layout, None)
        assert (len(found.modules), found.whole) == (
            (len(file.layers), True) if to == formats.MOTION_LORA else (0, False)
        )
        assert coverage(formats.DIFFUSERS, Container(path), layout, None).whole == (to == formats.DIFFUSERS)


@pytest.mark.parametrize("there", [formats.DIFFUSERS, formats.PEFT, formats.KOHYA, formats.MOTION_LORA])
def test_there_and_back_at_full_size_is_the_identity(there: str, tmp_path: Path) -> None:
    """Without a base: by the packaged layout."""
    layout = packaged_layouts()["animatediff"]
    random = np.random.default_rng(0)
    shapes = {module: shape for module, shape in layout.shapes.items() if motion_lora_stem(module)}
    layers = {
        module: Layer({A: random.random((2, wide), np.float32), B: random.random((tall, 2), np.float32)}, 1.5)
        for module, (tall, wide) in list(shapes.items())[::16]
    }
    file = AdapterFile(tmp_path, layers, AdapterInfo(), layout=layout)
    start = write_adapter(tmp_path / "a.safetensors", file, formats.MOTION_LORA, "fp16")
    across = write_adapter(tmp_path / "b.safetensors", read_adapter(start), there, "fp16")
    back = write_adapter(tmp_path / "c.safetensors", read_adapter(across), formats.MOTION_LORA, "fp16")
    assert back.read_bytes().replace(b'"c"', b'"a"') == start.read_bytes()


def test_convert_and_the_mend_of_its_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("animatediff").save_pretrained(tmp_path / "base" / "unet")  # type: ignore[operator]
    run, base = trained("animatediff", "lora").folder, f"base={tmp_path}/base"
    words = ["adapter", "convert", str(run), base, "to=motion_lora", f"out={tmp_path}/a.safetensors"]
    capsys.readouterr()
    assert main(words) == 4
    told = capsys.readouterr().err
    assert "'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k' is no attention of a motion module" in told
    pattern = next(word.strip("'") for word in told.split() if word.startswith("'pattern="))
    mend = ["adapter", "slice", str(run), base, pattern, "to=motion_lora", f"out={tmp_path}/a.safetensors"]
    assert main(mend) == 0
    assert main(["adapter", "check", f"{tmp_path}/a.safetensors", base, "for=motion_lora", "sample=false"]) == 0


def test_the_pictures_below_motion_modules_are_no_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The header of an adapter names the picture model; its motion modules are elsewhere."""
    unet = make("motion_modules")
    pictures = {name: value for name, value in unet.state_dict().items() if "motion_modules" not in name}
    (tmp_path / "pictures" / "unet").mkdir(parents=True)
    save_file(pictures, tmp_path / "pictures" / "unet" / "diffusion_pytorch_model.safetensors")
    file = read_adapter(trained("motion_modules", "lora").folder, layout_of(unet))
    file = replace(file, info=AdapterInfo(base=str(tmp_path / "pictures")))
    path = write_adapter(tmp_path / "a.safetensors", file, formats.DIFFUSERS, "fp32")
    assert main(["adapter", "slice", str(path), "blocks=mid_block", f"out={tmp_path}/b.safetensors"]) == 0
    capsys.readouterr()
    assert main(["adapter", "convert", str(path), f"base={tmp_path}/pictures", f"out={tmp_path}/c.safetensors"]) == 4
    assert "a model of pictures" in capsys.readouterr().err


def test_an_unknown_model_is_asked_for(tmp_path: Path) -> None:
    layers = {"x.motion_modules.0.transformer_blocks.0.attn1.to_q": Layer({A: np.ones((1, 4)), B: np.ones((4, 1))})}
    file = AdapterFile(tmp_path, layers, AdapterInfo(), format=formats.DIFFUSERS)
    with pytest.raises(ModelError, match="a model that svdtrain does not know"):
        write_adapter(tmp_path / "a.safetensors", file, formats.MOTION_LORA, "fp32")
