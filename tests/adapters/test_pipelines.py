"""Adapters on stock pipelines: what is loaded is exactly what was trained, and taking it out leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file

import svdtrain
from svdtrain.adapters.files import CONFIG, WEIGHTS, read_adapter, save_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.inject import adapter_parameters, inject, peft_config
from svdtrain.adapters.spec import AdapterInfo, AdapterSpec, HalfSpec
from svdtrain.families.svd import SPEC, SVDFamily
from svdtrain.foundation.errors import ModelError, UsageError
from tests.tiny_models import FRAMES, SIZE, load_tiny_svd, save_tiny_svd

PATTERNS = SPEC.targets["attention_and_feed_forward"]
ADAPTER = AdapterSpec(
    {
        "spatial": HalfSpec(PATTERNS["spatial"], rank=2, alpha=4, learning_rate=1e-3),
        "temporal": HalfSpec(PATTERNS["temporal"], rank=3, alpha=1.5, learning_rate=1e-4),
    }
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An adapter with B far from zero, saved; and the frames of the very model that was saved."""
    family = load_tiny_svd(base)
    mark = fingerprint(family.denoiser)
    inject(family.denoiser, ADAPTER, seed=0)
    randomise(family)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    info = AdapterInfo(model="tiny", base="tiny", base_fingerprint=mark)
    save_adapter(folder, arrays(family), peft_config(ADAPTER).to_dict(), info)
    return folder, frames_of(family.pipeline())


def randomise(family: SVDFamily) -> None:
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in adapter_parameters(family.denoiser).items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)


def arrays(family: SVDFamily) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}


def frames_of(pipeline: Any) -> np.ndarray:  # noqa: ANN401
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    return pipeline(
        image,
        height=SIZE,
        width=SIZE,
        num_frames=FRAMES,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]


def stock(base: Path) -> StableVideoDiffusionPipeline:
    return load_tiny_svd(base).pipeline()


def test_injection_changes_no_bit(base: Path) -> None:
    family = load_tiny_svd(base)
    before = frames_of(family.pipeline())
    inject(family.denoiser, ADAPTER, seed=0)
    assert np.array_equal(frames_of(family.pipeline()), before)


def test_injection_is_a_pure_function_of_the_seed(base: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        family = load_tiny_svd(base)
        torch.manual_seed(torch.seed())
        inject(family.denoiser, ADAPTER, seed=seed)
        drawn.append(torch.cat([p.detach().flatten() for p in adapter_parameters(family.denoiser).values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_ranks_and_scales_are_those_of_each_half(base: Path) -> None:
    family = load_tiny_svd(base)
    inject(family.denoiser, ADAPTER, seed=0)
    for name, parameter in adapter_parameters(family.denoiser).items():
        if "lora_A" in name:
            assert parameter.shape[0] == (3 if "temporal_" in name else 2)
            assert parameter.dtype == torch.float32
    layers = {n: m for n, m in family.denoiser.named_modules() if hasattr(m, "lora_A") and hasattr(m, "scaling")}
    assert {layer.scaling["default"] for name, layer in layers.items() if "temporal_" in name} == {0.5}
    assert {layer.scaling["default"] for name, layer in layers.items() if "temporal_" not in name} == {2.0}


def test_a_loaded_adapter_gives_the_training_models_frames(base: Path, trained: tuple[Path, np.ndarray]) -> None:
    folder, expected = trained
    pipe = stock(base)
    before = frames_of(pipe)
    svdtrain.load_adapter(pipe, folder)
    assert np.array_equal(frames_of(pipe), expected)
    assert not np.array_equal(before, expected)
    svdtrain.set_strength(pipe, 0.0)
    assert np.array_equal(frames_of(pipe), before)
    svdtrain.set_strength(pipe, 1.0)
    assert np.array_equal(frames_of(pipe), expected)
    svdtrain.unload_adapter(pipe)
    assert np.array_equal(frames_of(pipe), before)
    assert not [name for name, _ in pipe.unet.named_parameters() if "lora" in name or "base_layer" in name]


def test_each_half_has_its_own_strength(base: Path, trained: tuple[Path, np.ndarray]) -> None:
    folder, whole = trained
    pipe = stock(base)
    before = frames_of(pipe)
    svdtrain.load_adapter(pipe, folder, spatial=1.0, temporal=0.0)
    spatial = frames_of(pipe)
    svdtrain.set_strength(pipe, spatial=0.0, temporal=1.0)
    temporal = frames_of(pipe)
    pictures = (before, spatial, temporal, whole)
    assert all(not np.array_equal(a, b) for i, a in enumerate(pictures) for b in pictures[i + 1 :])


def test_two_adapters_add_and_leave_one_by_one(base: Path, trained: tuple[Path, np.ndarray]) -> None:
    folder, once = trained
    pipe = stock(base)
    before = frames_of(pipe)
    svdtrain.load_adapter(pipe, folder, strength=0.5)
    second = svdtrain.load_adapter(pipe, folder, strength=0.5)
    assert np.abs(frames_of(pipe) - once).max() < 1e-4
    svdtrain.unload_adapter(pipe, second)
    assert np.abs(frames_of(pipe) - once).max() > 1e-3
    svdtrain.unload_adapter(pipe)
    assert np.array_equal(frames_of(pipe), before)


def test_equal_adapters_are_equal_files(base: Path, tmp_path: Path) -> None:
    family = load_tiny_svd(base)
    inject(family.denoiser, ADAPTER, seed=0)
    written = []
    for number in range(4):
        info = AdapterInfo(model="tiny", base="tiny", recipe="é", version="0")
        path = save_adapter(tmp_path / str(number), arrays(family), peft_config(ADAPTER).to_dict(), info)
        written.append(path.read_bytes())
    assert len(set(written)) == 1
    assert read_adapter(tmp_path / "0").info.recipe == "é"


def test_peft_reads_the_folder_and_merging_changes_little(base: Path, trained: tuple[Path, np.ndarray]) -> None:
    """T13: the network's output to 1e-6 of its size, and so the frames."""
    folder, expected = trained
    pipe, unmerged = stock(base), load_tiny_svd(base).denoiser
    plain = output_of(unmerged)
    svdtrain.load_adapter(unmerged, folder)
    pipe.unet = PeftModel.from_pretrained(pipe.unet, folder).merge_and_unload()
    wanted = output_of(unmerged)
    assert (wanted - plain).abs().max() > 1e-3, "the adapter does something"
    assert (output_of(pipe.unet) - wanted).abs().max() < 1e-6 * max(1.0, float(wanted.abs().max()))
    assert np.abs(frames_of(pipe) - expected).max() < 1e-4


@torch.no_grad()
def output_of(unet: Any) -> torch.Tensor:  # noqa: ANN401
    g = torch.Generator().manual_seed(0)
    sample = torch.randn(1, FRAMES, 8, 8, 8, generator=g)
    embedding = torch.randn(1, 1, unet.config.cross_attention_dim, generator=g)
    return unet(sample, torch.tensor([0.3]), embedding, torch.tensor([[6.0, 127.0, 0.02]]), return_dict=False)[0]


def test_a_file_alone_is_enough(base: Path, trained: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, expected = trained
    (tmp_path / "style.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    pipe = stock(base)
    svdtrain.load_adapter(pipe, tmp_path / "style.safetensors")
    assert np.array_equal(frames_of(pipe), expected)


def test_fingerprint_survives_casts_and_sees_fine_tunes(base: Path) -> None:
    unet = load_tiny_svd(base).denoiser
    mark = fingerprint(unet)
    assert differences(mark, fingerprint(load_tiny_svd(base).denoiser)) == ""
    for dtype in (torch.bfloat16, torch.float16):
        assert differences(mark, fingerprint(torch.nn.Module.to(load_tiny_svd(base).denoiser, dtype))) == ""
    with torch.no_grad():
        g = torch.Generator().manual_seed(0)
        for parameter in unet.parameters():
            parameter.add_(0.03 * parameter.std() * torch.randn(parameter.shape, generator=g))
    assert "other weights" in differences(mark, fingerprint(unet))


def damage(folder: Path, to: Path, kind: str) -> Path:
    """A copy of an adapter folder with one fault."""
    to.mkdir()
    tensors, config = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())
    first = next(iter(tensors))
    if kind == "nan":
        tensors[first].flatten()[0] = float("nan")
    elif kind == "missing tensor":
        del tensors[first]
    elif kind == "missing module":
        tensors = {name: t for name, t in tensors.items() if not name.startswith(first.partition(".lora_")[0])}
    elif kind == "extra module":
        tensors |= {name.replace(".attn1.", ".attn3."): t.clone() for name, t in tensors.items() if name == first}
    elif kind == "foreign prefix":
        tensors = {f"net.{name}": t for name, t in tensors.items()}
    elif kind == "half a pair":
        tensors = {name: t for name, t in tensors.items() if "lora_B" not in name}
    elif kind == "twice":
        tensors[first.removeprefix("base_model.model.")] = tensors[first].clone()
    elif kind == "path":
        tensors["../../etc/x.lora_A.weight"] = tensors.pop(first)
    elif kind == "foreign module":
        tensors[first.replace("attn1", "attn7")] = tensors.pop(first)
    elif kind == "rank":
        config["r"], config["rank_pattern"] = 5, {}
    elif kind == "alpha":
        config["lora_alpha"] = 1e9
    elif kind == "alpha of one half":
        config["alpha_pattern"] = dict.fromkeys(config["alpha_pattern"], 1e9)
    elif kind == "no lora":
        tensors = {"weight": torch.zeros(2)}
    elif kind == "empty":
        tensors = {}
    (to / CONFIG).write_text(json.dumps(config))
    save_file(tensors, to / WEIGHTS)
    if kind == "truncated":
        (to / WEIGHTS).write_bytes((to / WEIGHTS).read_bytes()[:-100])
    if kind == "no config":
        (to / CONFIG).unlink()
    return to


FAULTS = [
    ("nan", "not finite"),
    ("missing tensor", "'lora_A.weight' is missing"),
    ("missing module", "1 of its 72 modules are missing"),
    ("foreign module", "not in this model"),
    ("extra module", "1 of its 73 modules are not in this model"),
    ("foreign prefix", "72 of its 72 modules are not in this model"),
    ("half a pair", "'lora_B.weight' is missing"),
    ("twice", "twice"),
    ("path", "is a path"),
    ("rank", "in the file"),
    ("alpha", "outside"),
    ("alpha of one half", "outside"),
    ("no lora", "no adapter's"),
    ("empty", "no tensors"),
    ("truncated", "not a whole safetensors file"),
    ("no config", "rank and alpha"),
]


@pytest.mark.parametrize(("kind", "said"), FAULTS)
def test_a_faulty_file_is_refused_and_nothing_is_loaded(
    base: Path, trained: tuple[Path, np.ndarray], tmp_path: Path, kind: str, said: str
) -> None:
    pipe = stock(base)
    before = frames_of(pipe)
    with pytest.raises(ModelError, match=said):
        svdtrain.load_adapter(pipe, damage(trained[0], tmp_path / "faulty", kind))
    assert np.array_equal(frames_of(pipe), before)
    assert not [name for name, _ in pipe.unet.named_parameters() if "lora" in name]


def test_another_base_is_refused(trained: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pipe = stock(save_tiny_svd(tmp_path / "other", seed=1))
    with pytest.raises(ModelError, match="made for tiny"):
        svdtrain.load_adapter(pipe, trained[0])
    svdtrain.load_adapter(pipe, trained[0], check_base=False)


def test_wrong_calls_are_named(base: Path, trained: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pipe = stock(base)
    with pytest.raises(UsageError, match="strength is nan"):
        svdtrain.load_adapter(pipe, trained[0], float("nan"))
    with pytest.raises(UsageError, match="no adapter 'adaptor_0'"):
        svdtrain.set_strength(pipe, 1.0, name="adaptor_0")
    with pytest.raises(ModelError, match="does not exist"):
        svdtrain.load_adapter(pipe, tmp_path / "nothing")


def test_a_pattern_that_matches_nothing_names_the_nearest(base: Path) -> None:
    family = load_tiny_svd(base)
    wrong = AdapterSpec({"spatial": HalfSpec(r".*\.attn1\.query", 4, 4, 1e-3)})
    with pytest.raises(ModelError, match="matches 0 of") as caught:
        inject(family.denoiser, wrong, seed=0)
    assert "attn1.to_" in caught.value.hint
