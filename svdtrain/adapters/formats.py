"""Adapter files of every kind: their keys to layers, and layers to keys. Strict: what is not understood is listed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.layer import LOHA, LOKR, MAGNITUDE, A, B, Layer
from svdtrain.adapters.layout import packaged_layouts
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from svdtrain.adapters.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
ALPHA = "alpha"
PEFT, DIFFUSERS, COMFYUI, KOHYA = "peft", "diffusers", "comfyui", "kohya"
FORMATS = (DIFFUSERS, COMFYUI, PEFT, KOHYA)
LEAST_ALPHA, MOST_ALPHA = 1e-4, 1e4
PEFT_PREFIX = "base_model.model."
_PREFIXES = (
    PEFT_PREFIX,
    "model.diffusion_model.",
    "diffusion_model.",
    "unet.",
    "transformer.",
    "module.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
)
_ENDINGS: dict[str, str] = {
    **{f"{stem}A{adapter}.weight": A for stem in (".lora_",) for adapter in ("", ".default")},
    **{f"{stem}B{adapter}.weight": B for stem in (".lora_",) for adapter in ("", ".default")},
    **{f"{stem}down.weight": A for stem in (".lora_", "_lora.", ".lora.", ".lora_linear_layer.")},
    **{f"{stem}up.weight": B for stem in (".lora_", "_lora.", ".lora.", ".lora_linear_layer.")},
    ".lora_A": A,
    ".lora_B": B,
    **{f".{MAGNITUDE}{rest}": MAGNITUDE for rest in ("", ".weight", ".default", ".default.weight")},
    ".dora_scale": MAGNITUDE,
    ".alpha": ALPHA,
    **{f".{name}": name for name in LOHA | LOKR},
}
_BY_LENGTH = sorted(_ENDINGS, key=len, reverse=True)


@dataclass(frozen=True)
class Keys:
    """What a file's keys say: module spelling -> part -> key; and the keys that say nothing."""

    stems: Mapping[str, Mapping[str, str]]
    strange: list[str] = field(default_factory=list)


def split_keys(keys: Iterable[str]) -> Keys:
    """Keys by the modules they speak of, as spelled."""
    stems: dict[str, dict[str, str]] = defaultdict(dict)
    strange: list[str] = []
    for key in keys:
        ending = next((e for e in _BY_LENGTH if key.endswith(e)), None)
        part = _ENDINGS[ending] if ending else ""
        stem = key[: -len(ending)] if ending else key
        if not ending or part in stems[stem]:
            strange.append(key)
        else:
            stems[stem][part] = key
    return Keys({stem: parts for stem, parts in stems.items() if parts}, strange)


def format_of(keys: Iterable[str]) -> str:
    """The format that keys of this kind belong to, by their first."""
    first = next(iter(keys), "")
    if first.startswith(PEFT_PREFIX):
        return PEFT
    if first.startswith(("lora_", "lycoris_")):
        return KOHYA
    return COMFYUI if "diffusion_model." in first else DIFFUSERS


def module_of(stem: str, layout: Layout | None) -> str | None:
    """The module that a spelling names; None for one that the layout does not have. Without a layout: the bare name."""
    name = re.sub(r"\.processor\.(to_[qkv]|to_out)$", r".\1", stem)
    tried = [name]
    while prefix := next((p for p in _PREFIXES if tried[-1].startswith(p)), None):
        tried.append(tried[-1].removeprefix(prefix))
    if layout is None:
        return tried[-1]
    tried += [f"{one}.0" for one in tried if one.endswith("to_out")] + [
        f"{one}_0" for one in tried if one.endswith("to_out")
    ]
    return next((layout.spellings[one] for one in tried if one in layout.spellings), None)


def recognised(stems: Iterable[str]) -> tuple[str, Layout] | None:
    """The published family that has most of these modules; None when it has none."""
    wanted = list(stems)
    known = packaged_layouts()
    scores = {name: sum(module_of(stem, layout) is not None for stem in wanted) for name, layout in known.items()}
    best = max(scores, key=lambda name: scores[name], default="")
    return (best, known[best]) if scores.get(best) else None


@dataclass(frozen=True)
class Settings:
    """peft's config of an adapter, as far as it changes what the tensors mean."""

    values: Mapping[str, Any]

    def of(self, module: str, name: str) -> Any:  # noqa: ANN401
        """rank or alpha of a module: the first pattern that matches its name, else the general value."""
        patterns = self.values.get(f"{name}_pattern") or {}
        matched = next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), None)
        general = {"rank": ("r",), "alpha": ("lora_alpha", "alpha")}[name]
        return patterns[matched] if matched else next((self.values[g] for g in general if g in self.values), None)

    def scale(self, module: str, rank: int | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rsLoRA. Raises ValueError for what cannot be."""
        alpha, stated = self.of(module, "alpha"), self.of(module, "rank")
        if not isinstance(alpha, int | float) or not isinstance(stated, int) or stated < 1:
            raise ValueError(f"rank {stated!r} and alpha {alpha!r}")
        if rank is not None and rank != stated and "lora_alpha" in self.values:
            raise ValueError(f"rank {stated} there, {rank} in the file")
        return alpha / (stated**0.5 if self.values.get("use_rslora") else stated)


def settings_from(text: str) -> Settings:
    """From adapter_config.json or a header's lora_adapter_metadata, whose keys may carry the pipeline's prefix."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError("it is no table")
    values = {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in values.items()}
    stated = {name: values[name] for name in ("lora_alpha", "alpha") if values.get(name) is not None}
    for name, alpha in (stated | (values.get("alpha_pattern") or {})).items():
        if not isinstance(alpha, int | float) or not LEAST_ALPHA <= alpha <= MOST_ALPHA:
            raise ValueError(f"{name} is {alpha}, outside {LEAST_ALPHA:g} to {MOST_ALPHA:g}")
    return Settings(values)


def layer_from(module: str, parts: Mapping[str, Array], settings: Settings | None, *, where: str) -> Layer:
    """A layer of its tensors; its scale from .alpha, else from the settings, else 1. Raises ModelError."""
    factors = {name: array for name, array in parts.items() if name != ALPHA}
    if MAGNITUDE in factors:
        factors[MAGNITUDE] = factors[MAGNITUDE].reshape(-1)
    if not factors:
        raise ModelError(f"{where}: '{module}' has an alpha and no weights", "the file is damaged")
    layer = Layer(factors)
    if fault := layer.fault():
        raise ModelError(
            f"{where}: '{module}': {fault}", "the file is damaged, or of a kind that svdtrain does not read"
        )
    try:
        if ALPHA in parts:
            rank, alpha = layer.rank, float(parts[ALPHA].reshape(-1)[0])
            if not LEAST_ALPHA <= abs(alpha) <= MOST_ALPHA:
                raise ValueError(f"alpha {alpha:g} is outside {LEAST_ALPHA:g} to {MOST_ALPHA:g}")
            return Layer(factors, alpha / rank if rank else 1.0)
        return Layer(factors, settings.scale(module, layer.rank) if settings else 1.0)
    except ValueError as error:
        raise ModelError(
            f"{where}: '{module}': {error}", "the settings belong to another file, or one is damaged"
        ) from error


def written(layers: Mapping[str, Layer], to: str, layout: Layout | None) -> dict[str, Array]:
    """The tensors of a file in a format. Scales are folded in, and alpha = rank is written where the format has one.

    Raises ModelError where a program cannot read such an adapter at all.
    """
    component = layout.component if layout else "unet"
    tensors: dict[str, Array] = {}
    for module, layer in layers.items():
        folded = layer.folded()
        if to in (PEFT, DIFFUSERS):
            prefix = PEFT_PREFIX if to == PEFT else f"{component}."
            tensors |= {f"{prefix}{module}.{name}": part for name, part in folded.parts.items()}
            continue
        if layer.kind == "dora":
            raise ModelError(f"to={to}: programs disagree on what a DoRA file means", "make it a LoRA: adapter to-lora")
        name = (layout.native if layout else {}).get(module)
        if name is None and to == COMFYUI:
            raise ModelError(
                f"to=comfyui: ComfyUI has no model with a module '{module}'",
                "to=diffusers is what its wrappers around diffusers read",
            )
        stem = f"diffusion_model.{name}" if to == COMFYUI else f"lora_{component}_{(name or module).replace('.', '_')}"
        spelled = {A: "lora_down.weight", B: "lora_up.weight"}
        tensors |= {f"{stem}.{spelled.get(part, part)}": array for part, array in folded.parts.items()}
        tensors[f"{stem}.alpha"] = np.array(float(layer.rank or 1), np.float32)
    return tensors


def peft_config(layers: Mapping[str, Layer], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """adapter_config.json for layers whose scale is folded: alpha = rank, the rarer ranks as patterns."""
    kinds = {layer.kind for layer in layers.values()}
    ranks = {module: layer.rank or int((values or {}).get("r", 1)) for module, layer in layers.items()}
    usual = max(set(ranks.values()), key=lambda rank: (list(ranks.values()).count(rank), rank))
    rare = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != usual}
    config: dict[str, Any] = {
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": usual,
        "rank_pattern": rare,
        "alpha_pattern": rare,
        "target_modules": sorted(layers),
        "task_type": None,
    }
    if kinds <= {"lora", "dora"}:
        return config | {"peft_type": "LORA", "lora_alpha": usual, "bias": "none", "use_dora": kinds == {"dora"}}
    kept = ("decompose_both", "decompose_factor", "use_effective_conv2d")
    shape = {name: values[name] for name in kept if values and name in values}
    return config | {"peft_type": "LOHA" if kinds == {"loha"} else "LOKR", "alpha": usual} | shape


def kinds_of(layers: Mapping[str, Layer]) -> str:
    """The kind of all layers, in a word; 'mixed' for several."""
    kinds = {layer.kind for layer in layers.values()}
    return kinds.pop() if len(kinds) == 1 else "mixed"
