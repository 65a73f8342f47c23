"""The proof of an export: each file in a fresh pipeline, its weights module by module, then a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from svdtrain.adapters.files import WEIGHTS, AdapterFile, read_adapter
from svdtrain.adapters.formats import KOHYA, PEFT
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.pipelines import load_adapter, set_strength, unload_adapter
from svdtrain.adapters.programs import furthest, read_as
from svdtrain.adapters.targets import adaptable_weights, half_of
from svdtrain.config.strengths import even
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.hardware import choose_device
from svdtrain.generation.proof import Sampled, proof, request_of, sampled

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.adapters.programs import Array, Patch
    from svdtrain.config.schema import ExportConfig
    from svdtrain.families.protocol import ModelFamily, Request

MERGED = "merged"


class Judge:
    """The base and the adapter in memory, sampled once, against which each file is held."""

    def __init__(self, config: ExportConfig, family: ModelFamily, file: AdapterFile) -> None:
        self.config, self.file, model = config, file, config.model
        self.request: Request = request_of(
            family, model.height, model.width, model.frames, model.fps, model.motion_bucket_id, config.steps
        )
        self.layout = layout_of(family.denoiser)
        self.weights = {m: w.detach().cpu() for m, w in adaptable_weights(family.denoiser).items() if m in file.layers}
        self.base = sampled(family, self.request)
        name = load_adapter(family.denoiser, config.adapter)
        self.memory = self.at_strength = sampled(family, self.request)
        if MERGED in config.to and config.strength != even(1):
            set_strength(family.denoiser, spatial=config.strength.spatial, temporal=config.strength.temporal)
            self.at_strength: Sampled = sampled(family, self.request)
        unload_adapter(family.denoiser, name)
        family.to("cpu", torch.float32)  # the files are loaded into models of their own

    def judged(self, to: str, path: Path) -> str:
        """How near it is, in words. Raises ModelError for a file that does not do what the adapter does."""
        merged, dtype = to == MERGED, self.config.dtype
        wider = "dtype=fp32 keeps every bit" if dtype != "fp32" else "please report this"
        family = fresh_family(self.config, **({"source": str(path)} if merged else {}))
        strength = self.config.strength if merged else even(1)
        try:
            seen = self._seen(to, family, path)
            strengths = {module: strength.of(half_of(module)) for module in self.file.layers}
            apart = furthest(seen, self.file.layers, self._weight, dtype, strengths=strengths, merged=merged)
        except ModelError as error:
            raise ModelError(f"to={to}: {error.message}", error.hint or f"nothing was left behind; {wider}") from error
        found = proof(self.at_strength if merged else self.memory, self.base, sampled(family, self.request))
        if not found.change:
            raise ModelError(f"to={to}: the adapter changes nothing at all", "train on, or look: adapter info FILE")
        if not found.holds(dtype):
            raise ModelError(
                f"to={to}: the file does not do what the adapter does: it {found}", f"nothing was left; {wider}"
            )
        return f"{found}; weights by {apart:.0e}"

    def _seen(self, to: str, family: ModelFamily, path: Path) -> dict[str, Patch]:
        """What each weight has changed by, once the file is loaded."""
        if to == MERGED:
            weights = adaptable_weights(family.denoiser)
            return {m: lambda m=m: _flat(weights[m]) - _flat(self.weights[m]) for m in self.file.layers}
        if to == KOHYA and not self.layout.native:
            load_adapter(family.denoiser, path)
            layers = read_adapter(path, self.layout).layers
            return {m: lambda m=m: layers[m].delta(self._weight(m)) for m in layers}
        return read_as(to, family.denoiser, path / WEIGHTS if to == PEFT else path, self.layout)

    def _weight(self, module: str) -> Array:
        return self.weights[module].numpy()


def _flat(weight: torch.Tensor) -> Array:
    return weight.detach().cpu().float().flatten(1).numpy()


def fresh_family(config: ExportConfig, **changes: Any) -> ModelFamily:  # noqa: ANN401
    """The model from disk, in fp32; `changes`: another place."""
    model = config.model.model_copy(update=changes | ({"variant": None} if changes else {}))
    family = build_family(model)
    family.to(choose_device(config.device), torch.float32)
    return family
