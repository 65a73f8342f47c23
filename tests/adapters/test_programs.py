"""Every denoiser x kind x format: trained one step, written, and read into a fresh model by the program's own rules."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

import svdtrain
from svdtrain.adapters import formats
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import WEIGHTS, AdapterFile, read_adapter, save_adapter
from svdtrain.adapters.inject import adapter_parameters, inject, peft_config
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.programs import read_as
from svdtrain.adapters.spec import KINDS, AdapterInfo, AdapterSpec, HalfSpec
from svdtrain.adapters.targets import adaptable_weights, half_of
from svdtrain.foundation.errors import ModelError
from tests.tiny_denoisers import DENOISERS, make, output_of

REFUSED = {
    (formats.COMFYUI, "dora"): "programs disagree",
    (formats.KOHYA, "dora"): "programs disagree",
    (formats.DIFFUSERS, "loha"): "diffusers reads no LoHa",
    (formats.MOTION_LORA, "dora"): "programs read no DoRA",
    (formats.MOTION_LORA, "loha"): "programs read no LoHa",
    (formats.MOTION_LORA, "lokr"): "programs read no LoKr",
    **{(formats.COMFYUI, name): "ComfyUI has no model" for name in DENOISERS if not DENOISERS[name].comfyui},
    **{(formats.MOTION_LORA, name): "has no motion modules" for name in ("svd", "unet3d", "i2vgen_xl", "cogvideox")},
    (formats.MOTION_LORA, "animatediff"): "is no attention of a motion module",
}
"""(format, kind or denoiser) -> why there is no such file."""


@dataclass(frozen=True)
class Trained:
    """An adapter after a step, its folder, and the outputs of the very model that was trained, and of its base."""

    folder: Path
    output: Tensor
    base: Tensor
    exact: Tensor
    """The output again, in float64, where only what differs shows."""


@cache
@torch.enable_grad()
def trained(name: str, kind: str) -> Trained:
    denoiser = make(name)
    patterns = {"spatial": DENOISERS[name].spatial, "temporal": DENOISERS[name].temporal}
    ranks = {"spatial": (2, 4.0), "temporal": (3, 1.5)}
    halves = {half: HalfSpec(pattern, *ranks[half], 1e-2) for half, pattern in patterns.items() if pattern}
    spec = AdapterSpec(halves, kind=kind)
    inject(denoiser, spec, seed=0)
    base = output_of(denoiser, name).detach()
    parameters = adapter_parameters(denoiser)
    optimizer = torch.optim.AdamW(parameters.values(), 0.02)
    for _ in range(2):  # the first step moves only the factor that was zero
        output_of(denoiser, name).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = Path(mkdtemp()) / "adapter"
    save_adapter(
        folder, {n: p.detach().numpy() for n, p in parameters.items()}, peft_config(spec).to_dict(), AdapterInfo()
    )
    with torch.no_grad():
        return Trained(folder, output_of(denoiser, name), base, output_of(denoiser.double(), name))


@torch.no_grad()
def error(denoiser: nn.Module, name: str, case: Trained) -> float:
    """Largest difference to the trained model's output in float64, relative to its largest number."""
    return float((output_of(denoiser.double(), name) - case.exact).abs().max() / case.exact.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DENOISERS)
class TestKind:
    def test_it_does_something_and_loads_to_the_bit(self, name: str, kind: str) -> None:
        case, denoiser = trained(name, kind), make(name)
        assert float((case.output - case.base).abs().max()) > 1e-3
        with torch.no_grad():
            before = output_of(denoiser, name)
        svdtrain.load_adapter(denoiser, case.folder)
        with torch.no_grad():
            assert torch.equal(output_of(denoiser, name), case.output)
        svdtrain.set_strength(denoiser, 0.0)
        with torch.no_grad():
            assert torch.allclose(output_of(denoiser, name), case.base, atol=1e-6)
        svdtrain.unload_adapter(denoiser)
        with torch.no_grad():
            assert torch.equal(output_of(denoiser, name), before)

    @pytest.mark.parametrize("to", formats.FORMATS)
    def test_every_format_is_read_by_its_program_and_by_us(self, name: str, kind: str, to: str, tmp_path: Path) -> None:
        case = trained(name, kind)
        layout = layout_of(make(name))
        file = read_adapter(case.folder, layout)
        if refusal := REFUSED.get((to, kind)) or REFUSED.get((to, name)):
            with pytest.raises(ModelError, match=refusal):
                write_adapter(tmp_path / "a.safetensors", file, to, "fp32")
            assert list(tmp_path.iterdir()) == []
            return
        path = write_adapter(tmp_path / (WEIGHTS if to == formats.PEFT else "a.safetensors"), file, to, "fp32")
        ours = make(name)
        svdtrain.load_adapter(ours, path)
        assert error(ours, name, case) < 1e-6
        if to != formats.KOHYA or DENOISERS[name].comfyui:
            theirs = make(name)
            read_as(to, theirs, path, layout)
            assert error(theirs, name, case) < 1e-6

    def test_strength_is_linear_in_what_an_adapter_adds_to_a_weight(self, name: str, kind: str) -> None:
        """At half strength every module adds half of its change: compared with weights changed by hand."""
        case, denoiser, by_hand = trained(name, kind), make(name), make(name)
        file = read_adapter(case.folder, layout_of(denoiser))
        svdtrain.load_adapter(denoiser, case.folder, 0.5)
        change_weights(by_hand, file, 0.5)
        with torch.no_grad():
            assert torch.allclose(output_of(denoiser, name), output_of(by_hand, name), atol=3e-6)


PIPELINES = [
    ("StableVideoDiffusionPipeline", "svd"),
    ("TextToVideoSDPipeline", "unet3d"),
    ("I2VGenXLPipeline", "i2vgen_xl"),
    ("AnimateDiffPipeline", "animatediff"),
    ("CogVideoXPipeline", "cogvideox"),
    ("CogVideoXImageToVideoPipeline", "cogvideox"),
]


@pytest.mark.parametrize(("pipeline", "name"), PIPELINES)
def test_stock_pipelines_take_adapters_and_give_them_back(pipeline: str, name: str) -> None:
    """The pipeline's own object, of which only the denoiser matters here; two adapters, each with its strength."""
    kind: Any = getattr(diffusers, pipeline)
    parts = dict.fromkeys(list(inspect.signature(kind.__init__).parameters)[1:])
    component = "transformer" if "transformer" in parts else "unet"
    pipe: Any = kind(**parts | {component: make(name)})
    denoiser, file = getattr(pipe, component), read_adapter(trained(name, "lora").folder)
    with torch.no_grad():
        before = output_of(denoiser, name)
        first = svdtrain.load_adapter(pipe, trained(name, "lora").folder, 0.5)
        svdtrain.load_adapter(pipe, trained(name, "lokr").folder, 2.0, 1.0, 0.25)
        by_hand = make(name)
        change_weights(by_hand, file, 0.5)
        lokr = read_adapter(trained(name, "lokr").folder)
        for half, strength in (("spatial", 1.0), ("temporal", 0.25)):
            of_half = {module: layer for module, layer in lokr.layers.items() if half_of(module) == half}
            change_weights(by_hand, replace(lokr, layers=of_half), strength)
        assert torch.allclose(output_of(denoiser, name), output_of(by_hand, name), atol=1e-5)
        svdtrain.unload_adapter(pipe, first)
        svdtrain.unload_adapter(pipe)
        assert torch.equal(output_of(denoiser, name), before)
    assert type(denoiser) is type(make(name))


def change_weights(denoiser: nn.Module, file: AdapterFile, strength: float) -> None:
    """W + strength x the layer's own mathematics."""
    weights = adaptable_weights(denoiser)
    with torch.no_grad():
        for module, layer in file.layers.items():
            delta = layer.delta(weights[module].double().numpy())
            weights[module] += strength * torch.from_numpy(delta).float().reshape(weights[module].shape)
