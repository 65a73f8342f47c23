"""Adapters on stock pipelines: what is loaded is exactly what was trained, and taking it out leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

import svdtrain
from svdtrain.adapters.files import WEIGHTS, read_adapter, save_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.inject import adapter_parameters, inject, peft_config
from svdtrain.adapters.spec import AdapterInfo, AdapterSpec, HalfSpec
from svdtrain.cli import main
from svdtrain.foundation.errors import ModelError, UsageError
from tests.adapters.trained import ADAPTER, arrays, frames_of, stock
from tests.tiny_models import FRAMES, load_tiny_svd, save_tiny_svd


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


def test_each_half_has_its_own_strength(base: Path, trained: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """To the bit: both alike are one strength, none is the base, one alone is that half cut out of the file."""
    folder, whole = trained
    pipe = stock(base)
    before = frames_of(pipe)
    svdtrain.load_adapter(pipe, folder, 0.5)
    half = frames_of(pipe)
    svdtrain.set_strength(pipe, spatial=0.5, temporal=0.5)
    assert np.array_equal(frames_of(pipe), half)
    svdtrain.set_strength(pipe, spatial=1.0)
    assert not np.array_equal(frames_of(pipe), half), "the other half stays"
    svdtrain.set_strength(pipe, spatial=0.0, temporal=0.0)
    assert np.array_equal(frames_of(pipe), before)
    svdtrain.unload_adapter(pipe)
    seen = [before, half, whole]
    for alone in ("spatial", "temporal"):
        svdtrain.load_adapter(pipe, folder, spatial=float(alone == "spatial"), temporal=float(alone == "temporal"))
        seen.append(frames_of(pipe))
        svdtrain.unload_adapter(pipe)
        out = tmp_path / f"{alone}.safetensors"
        assert main(["adapter", "slice", str(folder), f"half={alone}", f"base={base}", f"out={out}"]) == 0
        svdtrain.load_adapter(pipe, out)
        assert np.array_equal(frames_of(pipe), seen[-1])
        svdtrain.unload_adapter(pipe)
    assert all(not np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[i + 1 :])


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
