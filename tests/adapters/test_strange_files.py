"""Files that look like adapters and mean something else, and what real tools write that looks odd: told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNetMotionModel
from peft import LoKrConfig, LoraConfig, get_peft_model

import svdtrain
from svdtrain.adapters import formats
from svdtrain.adapters.container import write_container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import WEIGHTS, read_adapter
from svdtrain.adapters.inject import adapter_names
from svdtrain.adapters.layer import MAGNITUDE, Layer
from svdtrain.adapters.layout import BaseWeights, layout_of, weight_files
from svdtrain.adapters.patterns import safe_pattern
from svdtrain.adapters.programs import furthest, read_as
from svdtrain.foundation.errors import ModelError
from tests.tiny_denoisers import make, output_of

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OTHER = MODULE.replace("to_q", "to_k")
SIZE = 32


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def lora(module: str = MODULE) -> dict[str, np.ndarray]:
    return {f"{module}.lora_A.weight": normal(4, SIZE), f"{module}.lora_B.weight": normal(SIZE, 4)}


def loha(module: str = OTHER) -> dict[str, np.ndarray]:
    shapes = {"hada_w1_a": (SIZE, 2), "hada_w1_b": (2, SIZE), "hada_w2_a": (SIZE, 2), "hada_w2_b": (2, SIZE)}
    return {f"{module}.{name}": normal(*shape) for name, shape in shapes.items()}


SETTINGS = {"r": 4, "lora_alpha": 4, "peft_type": "LORA"}
REFUSED: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str]] = {  # name: tensors, settings, what is said
    "PiSSA": (lora(), {"init_lora_weights": "pissa"}, "changes the base's weights"),
    "OLoRA": (lora(), {"init_lora_weights": "olora"}, "changes the base's weights"),
    "layers of several kinds": (lora() | loha(), {}, "layers of several kinds"),
    "a DoRA without magnitudes": (lora(), {"use_dora": True}, f"'{MODULE}.{MAGNITUDE}' is missing"),
    "norms of columns": (lora() | {f"{MODULE}.dora_scale": normal(1, SIZE)}, {}, r"magnitude \[1, 32\] for 32 rows"),
    "a pattern that is none": (lora(), {"rank_pattern": {"((": 3}}, "no regular expression"),
    "a pattern without end": (lora(), {"rank_pattern": {"(a+)+$": 3}}, "repeats within repeats"),
    "targets a number": (lora(), {"target_modules": 5}, "neither a pattern nor names"),
    "targets a broken pattern": (lora(), {"target_modules": "(("}, "no regular expression"),
    "patterns a list": (lora(), {"rank_pattern": [1]}, "no table"),
    "rank a word": (lora(), {"r": "4"}, "rank '4'"),
    "a kernel in B": ({**lora(), f"{MODULE}.lora_B.weight": normal(SIZE, 4, 3, 3)}, {}, "no rank in common"),
    "an empty alpha": ({**lora(), f"{MODULE}.alpha": normal(0)}, {}, "one number is wanted"),
    "a product of terabytes": (
        {
            f"{MODULE}.lokr_w1_a": normal(300_000, 1),
            f"{MODULE}.lokr_w1_b": normal(1, 300_000),
            f"{MODULE}.lokr_w2": normal(2, 2),
        },
        {"peft_type": "LOKR", "r": 1, "alpha": 1},
        "the model has",
    ),
    "a factor of three axes": (
        {f"{MODULE}.lokr_w1": normal(4, 4, 2), f"{MODULE}.lokr_w2": normal(8, 8)},
        {"peft_type": "LOKR", "alpha": 4},
        "are no factors",
    ),
}


def save(folder: Path, tensors: dict[str, np.ndarray], settings: dict[str, Any]) -> Path:
    header = {"lora_adapter_metadata": json.dumps(SETTINGS | settings)} if settings else {}
    write_container(folder / "a.safetensors", tensors, header)
    return folder / "a.safetensors"


@pytest.mark.parametrize("name", REFUSED)
def test_a_strange_file_is_refused_and_leaves_no_trace(name: str, tmp_path: Path) -> None:
    tensors, settings, said = REFUSED[name]
    denoiser = make("svd")
    before = {key: value.clone() for key, value in denoiser.state_dict().items()}
    wants = [p.requires_grad for p in denoiser.parameters()]
    with pytest.raises(ModelError, match=said):
        svdtrain.load_adapter(denoiser, save(tmp_path, tensors, settings))
    after = denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert wants == [p.requires_grad for p in denoiser.parameters()]
    assert not hasattr(denoiser, "peft_config")


def test_memory_that_runs_out_while_loading_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = make("svd")
    names = list(denoiser.state_dict())
    path = save(tmp_path, lora() | lora(OTHER), {})

    def full(*_: Any) -> None:  # noqa: ANN401
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("svdtrain.adapters.pipelines._fill", full)
    with pytest.raises(torch.OutOfMemoryError):
        svdtrain.load_adapter(denoiser, path)
    assert list(denoiser.state_dict()) == names
    assert all(p.requires_grad for p in denoiser.parameters())


def test_offloaded_weights_are_refused(tmp_path: Path) -> None:
    denoiser = make("svd").to("meta")
    with pytest.raises(ModelError, match="are offloaded"):
        svdtrain.load_adapter(denoiser, save(tmp_path, lora(), {}))


ODD: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], float]] = {  # name: tensors, settings, scale
    "an integer alpha": ({**lora(), f"{MODULE}.alpha": np.array(2)}, {}, 0.5),
    "an alpha of one axis": ({**lora(), f"{MODULE}.alpha": np.array([2.0], np.float32)}, {}, 0.5),
    "a huge alpha of whole factors": (
        {
            f"{MODULE}.lokr_w1": normal(4, 4),
            f"{MODULE}.lokr_w2": normal(8, 8),
            f"{MODULE}.alpha": np.array(9999999999.0, np.float32),
        },
        {},
        1.0,
    ),
    "modules left out": (lora(), {"target_modules": ["to_q", "to_k"], "exclude_modules": ["to_k"]}, 1.0),
    "both alphas": ({**lora(), f"{MODULE}.alpha": np.array(8.0, np.float32)}, {"lora_alpha": 4}, 2.0),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_of_real_tools_are_read(name: str, tmp_path: Path) -> None:
    tensors, settings, scale = ODD[name]
    path = save(tmp_path, tensors, settings)
    if name == "an integer alpha":
        from safetensors.numpy import save_file

        save_file({key: np.asarray(value) for key, value in tensors.items()}, path)
    denoiser = make("svd")
    svdtrain.load_adapter(denoiser, path)
    assert read_adapter(path, layout_of(make("svd"))).layers[MODULE].scale == scale
    by_hand = make("svd")
    layer = read_adapter(path, layout_of(by_hand)).layers[MODULE]
    with torch.no_grad():
        by_hand.get_parameter(f"{MODULE}.weight").add_(torch.from_numpy(layer.delta()))
        assert torch.allclose(output_of(denoiser, "svd"), output_of(by_hand, "svd"), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        LoKrConfig(r=64, alpha=64, target_modules=["to_q"], init_weights=False),
        LoKrConfig(r=4, alpha=2, decompose_both=True, decompose_factor=4, target_modules=["to_q"], init_weights=False),
        LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=["conv1", "to_q"], init_lora_weights=False),
    ],
    ids=["whole factors", "three factors", "dora on convolutions"],
)
def test_what_peft_saves_goes_through_every_format_that_holds_it(config: Any, tmp_path: Path) -> None:  # noqa: ANN401
    model = get_peft_model(make("svd"), config)  # type: ignore[arg-type]
    model.save_pretrained(str(tmp_path / "peft"))
    file = read_adapter(tmp_path / "peft", layout_of(make("svd")))
    for to in (formats.PEFT, formats.DIFFUSERS):
        fresh = make("svd")
        weights = {m: fresh.get_parameter(f"{m}.weight").detach().numpy().copy() for m in file.layers}
        path = write_adapter(tmp_path / to / (WEIGHTS if to == formats.PEFT else "a.safetensors"), file, to, "fp32")
        seen = read_as(to, fresh, path, layout_of(make("svd")))
        assert furthest(seen, file.layers, weights.__getitem__, "fp32") < 1e-5


def test_every_module_is_compared() -> None:
    """One wrong module among many, too small to be seen in a sample, is found; so are a missing and a foreign one."""
    layers = {f"m{n}": Layer({"lora_A.weight": normal(2, 8) / 10**n, "lora_B.weight": normal(8, 2)}) for n in range(4)}
    weight: Callable[[str], np.ndarray] = lambda _: normal(8, 8)  # noqa: E731
    seen = {m: layer.delta for m, layer in layers.items()}
    assert furthest(seen, layers, weight, "fp32") == 0
    with pytest.raises(ModelError, match="'m3': its change is off"):
        furthest(seen | {"m3": lambda: -layers["m3"].delta()}, layers, weight, "bf16")
    with pytest.raises(ModelError, match="first 'm0'"):
        furthest({m: one for m, one in seen.items() if m != "m0"}, layers, weight, "fp32")


def test_other_adapters_stay_as_they_were(tmp_path: Path) -> None:
    """diffusers' own, one of them switched off: loading beside them switches nothing on, unloading leaves them so."""
    denoiser = make("animatediff")
    assert isinstance(denoiser, UNetMotionModel)
    for name in ("zoom", "pan"):
        denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), name)
    denoiser.set_adapters(["zoom"], [0.7])
    shapes = layout_of(make("animatediff")).shapes
    module = next(name for name in shapes if name.endswith("to_q"))
    rows, columns = shapes[module]
    nothing = {f"{module}.lora_A.weight": np.zeros((2, columns)), f"{module}.lora_B.weight": np.zeros((rows, 2))}
    with torch.no_grad():
        alone = output_of(denoiser, "animatediff")
        name = svdtrain.load_adapter(denoiser, save(tmp_path, nothing, {}))
        assert torch.equal(output_of(denoiser, "animatediff"), alone)
        svdtrain.unload_adapter(denoiser, name)
        assert torch.equal(output_of(denoiser, "animatediff"), alone)
    assert adapter_names(denoiser) == ["zoom", "pan"]


def test_passes_draw_nothing(tmp_path: Path) -> None:
    denoiser = make("svd")
    path = save(tmp_path, loha(), {})
    state = torch.get_rng_state()
    svdtrain.load_adapter(denoiser, path)
    with torch.no_grad():
        output_of(denoiser, "svd")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a*)+b", ".*a.*a.*a.*a.*a.*a.*a", "((x*)*)*y", "(", "x" * 30_000])
def test_patterns_of_files_are_quick_or_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern|expression|repeats"):
        safe_pattern(pattern)


def test_weights_on_disk_are_one_whole_set(tmp_path: Path) -> None:
    make("svd").save_pretrained(tmp_path, max_shard_size="1MB")  # type: ignore[operator]
    shards = sorted(tmp_path.glob("*-of-*"))
    assert len(shards) > 2
    assert set(BaseWeights(tmp_path, "unet").layout.shapes) >= set(layout_of(make("svd")).shapes)
    shards[1].rename(tmp_path / "gone")
    with pytest.raises(ModelError, match=f"1 of its {len(shards)} files are missing"):
        BaseWeights(tmp_path, "unet")
    for name in ("fp16.", "non_ema.", ""):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / f"diffusion_pytorch_model.{name}safetensors").write_bytes(b"")
        if name == "non_ema.":
            with pytest.raises(ModelError, match="which of"):
                weight_files(tmp_path / "two")
    assert [file.name for file in weight_files(tmp_path / "two")] == ["diffusion_pytorch_model.safetensors"]
