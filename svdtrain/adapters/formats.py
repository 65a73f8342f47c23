"""Adapter files of every kind: their keys to layers, by which model and with which scale. Strict: the rest is listed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.layer import LOHA, LOKR, MAGNITUDE, A, B, Layer
from svdtrain.adapters.layout import packaged_layouts
from svdtrain.adapters.names import without_motion_module_name
from svdtrain.adapters.patterns import safe_pattern
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation.errors import ModelError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from svdtrain.adapters.container import Container
    from svdtrain.adapters.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
ALPHA = "alpha"
PEFT, DIFFUSERS, COMFYUI, KOHYA, MOTION_LORA = "peft", "diffusers", "comfyui", "kohya", "motion_lora"
FORMATS = (DIFFUSERS, COMFYUI, PEFT, KOHYA, MOTION_LORA)
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
    if ".temporal_transformer." in first:
        return MOTION_LORA
    return COMFYUI if "diffusion_model." in first else DIFFUSERS


def module_of(stem: str, layout: Layout | None) -> str | None:
    """The module that a spelling names; None for one that the layout does not have. Without a layout: the bare name."""
    name = stem.replace(".processor.", ".")
    tried = [name]
    while prefix := next((p for p in _PREFIXES if tried[-1].startswith(p)), None):
        tried.append(tried[-1].removeprefix(prefix))
    if layout is None:
        return without_motion_module_name(tried[-1])
    tried += [f"{one}.0" for one in tried if one.endswith("to_out")] + [
        f"{one}_0" for one in tried if one.endswith("to_out")
    ]
    return next((layout.spellings[one] for one in tried if one in layout.spellings), None)


def recognised(file: Container, keys: Keys) -> Layout | None:
    """The published model that most of a file's modules are of, by name, then by size; None when none is of any.

    Of equals the one that the header names; else one that every program has, of these the one with the fewest modules.
    """
    info = AdapterInfo.from_header(file.metadata)

    def merits(name: str) -> tuple[int, ...]:
        layout = known[name]
        modules = {stem: module_of(stem, layout) for stem in keys.stems}
        there = {stem: layout.shapes[module] for stem, module in modules.items() if module is not None}
        sized = sum(_fits(file, keys.stems[stem], shape) for stem, shape in there.items())
        return len(there), sized, name in (info.model, info.family), bool(layout.native), -len(layout.shapes)

    known = packaged_layouts()
    scores = {name: merits(name) for name in known}
    best = max(scores, key=lambda name: scores[name], default="")
    return known[best] if best and scores[best][0] else None


def _fits(file: Container, parts: Mapping[str, str], shape: tuple[int, ...]) -> bool:
    """Whether a module's tensors are for a weight of that shape, by their own shapes."""
    shapes = {part: file.entries[key].shape for part, key in parts.items() if part not in (ALPHA, MAGNITUDE)}
    try:
        return bool(shapes) and not Layer({part: np.broadcast_to(0, s) for part, s in shapes.items()}).fault(shape)
    except ValueError:  # larger than any array
        return False


@dataclass(frozen=True, eq=False)
class Settings:
    """peft's config of an adapter, as far as it changes what the tensors mean."""

    values: Mapping[str, Any]

    def of(self, module: str, name: str) -> Any:  # noqa: ANN401
        """rank or alpha of a module: the first pattern that matches its name, else the general value."""
        patterns = self.values.get(f"{name}_pattern") or {}
        matched = next((p for p, compiled in self._patterns[name] if compiled.match(module)), None)
        general = {"rank": ("r",), "alpha": ("lora_alpha", "alpha")}[name]
        return patterns[matched] if matched else next((self.values[g] for g in general if g in self.values), None)

    @cached_property
    def _patterns(self) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
        return {
            name: [(p, safe_pattern(rf"(.*\.)?({p})$")) for p in self.values.get(f"{name}_pattern") or {}]
            for name in ("rank", "alpha")
        }

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
    _refuse_other_meanings(values)
    stated = {name: values[name] for name in ("lora_alpha", "alpha") if values.get(name) is not None}
    for name, alpha in (stated | (values.get("alpha_pattern") or {})).items():
        if not isinstance(alpha, int | float) or not LEAST_ALPHA <= alpha <= MOST_ALPHA:
            raise ValueError(f"{shown(name)} is {shown(alpha, 20)}, outside {LEAST_ALPHA:g} to {MOST_ALPHA:g}")
    return Settings(values)


_KNOWN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal", "lycoris")
_OTHER_MEANINGS = (
    "use_qalora",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "target_parameters",
    "modules_to_save",
    "trainable_token_indices",
    "fan_in_fan_out",
)


def _refuse_other_meanings(values: Mapping[str, Any]) -> None:
    """Settings under which the tensors mean something else than a LoRA, DoRA, LoHa or LoKr of the base itself."""
    beginning = values.get("init_lora_weights", values.get("init_weights"))
    if beginning not in _KNOWN_BEGINNINGS:
        raise ValueError(f"init '{beginning}' changes the base's weights: save it from peft as a plain LoRA")
    if odd := next((name for name in _OTHER_MEANINGS if values.get(name)), None):
        raise ValueError(f"{odd} is not understood")
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(values.get(name) or {}, dict):
            raise TypeError(f"{name} is no table")
    targets = values.get("target_modules") or []
    if not isinstance(targets, str) and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        raise TypeError("target_modules is neither a pattern nor names")


def layer_from(
    module: str, parts: Mapping[str, Array], alpha: float | None, settings: Settings | None, *, where: str
) -> Layer:
    """A layer of its tensors; its scale from its own alpha, else from the settings, else 1. Raises ModelError."""
    factors = dict(parts)
    if not factors:
        raise ModelError(f"{where}: '{shown(module)}' has an alpha and no weights", "the file is damaged")
    if MAGNITUDE in factors:
        factors[MAGNITUDE] = _rows(factors[MAGNITUDE])
    layer = Layer(factors)
    hint = "the file is damaged, or of a kind that svdtrain does not read"
    if fault := layer.fault():
        raise ModelError(f"{where}: '{shown(module)}': {shown(fault, 90)}", hint)
    stated = str((settings.values.get("peft_type") if settings else None) or "").lower()
    dora = bool(settings and settings.values.get("use_dora"))
    wanted = "dora" if dora else stated if stated in ("loha", "lokr") else layer.kind
    if layer.kind != wanted:
        lost = f", and '{shown(module)}.{MAGNITUDE}' is missing" if dora else ""
        raise ModelError(
            f"{where}: its settings speak of a {wanted}{lost}", "a tool that does not know the kind has cut it"
        )
    try:
        if alpha is not None:
            if layer.rank is not None and not LEAST_ALPHA <= abs(alpha) <= MOST_ALPHA:
                raise ValueError(f"alpha {alpha:g} is outside {LEAST_ALPHA:g} to {MOST_ALPHA:g}")
            return Layer(factors, alpha / layer.rank if layer.rank else 1.0)
        return Layer(factors, settings.scale(module, layer.rank) if settings else 1.0)
    except ValueError as error:
        raise ModelError(
            f"{where}: '{shown(module)}': {shown(str(error), 90)}",
            "the settings belong to another file, or one is damaged",
        ) from error


def _rows(magnitude: Array) -> Array:
    """[out], [out, 1 …] of kohya's tools, [1, out, 1, 1] of peft's convolutions; of columns, [1, in], it stays as it is."""
    if magnitude.ndim >= 4 and magnitude.shape[0] == 1:
        magnitude = magnitude[0]
    return magnitude.reshape(len(magnitude)) if magnitude.ndim and magnitude.size == len(magnitude) else magnitude


def peft_config(layers: Mapping[str, Layer], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """adapter_config.json for layers whose scale is folded: alpha = rank, the rarer ranks as patterns."""
    kinds = {layer.kind for layer in layers.values()}
    ranks = {module: layer.rank or _peft_rank(module, values or {}) for module, layer in layers.items()}
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
    kept = ("use_effective_conv2d", *(("decompose_both", "decompose_factor") if kinds == {"lokr"} else ()))
    shape = {name: values[name] for name in kept if values and name in values}
    return config | {"peft_type": "LOHA" if kinds == {"loha"} else "LOKR", "alpha": usual} | shape


def _peft_rank(module: str, values: Mapping[str, Any]) -> int:
    """The rank by which peft decided on two whole factors: only its own settings say so."""
    rank = Settings(values).of(module, "rank")
    if not isinstance(rank, int) or "decompose_factor" not in values:
        message = f"'{module}' is a LoKr of two whole factors, and peft would build another"
        raise ModelError(message, "to=comfyui and to=kohya keep it; adapter to-lora makes a LoRA of it")
    return rank


def kinds_of(layers: Mapping[str, Layer]) -> str:
    """The kind of all layers, in a word; 'mixed' for several."""
    kinds = {layer.kind for layer in layers.values()}
    return kinds.pop() if len(kinds) == 1 else "mixed"
