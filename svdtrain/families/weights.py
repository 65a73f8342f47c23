"""Where a model's weights are, and loading one part of them: safetensors only, from disk only, and never remote code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from svdtrain.families.blank import BlankTokenizer
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Weights:
    """A local diffusers folder, or a Hub id at a pinned revision that was fetched before."""

    place: str
    """Folder, or Hub id."""
    revision: str | None = None
    variant: str | None = None
    is_hub: bool = False
    parts: Mapping[str, Weights] = field(default_factory=dict[str, "Weights"])
    """What is loaded from elsewhere: the folder of the part itself."""
    blank: bool = False
    """Networks come from their configs alone, on the meta device: no file of weights is read, or needs to be there."""

    def __str__(self) -> str:
        if not self.is_hub:
            return self.place
        return f"{self.place} at revision {self.revision or 'main'}"


def load_part(kind: type[Any], weights: Weights, part: str, **changes: Any) -> Any:  # noqa: ANN401
    """Load one sub-folder of a diffusers model, or what `Weights.parts` names in its stead; `changes`: of its config.

    Raises ModelError: what was looked for, where, and how to get it.
    """
    place, inside = weights.parts.get(part, weights), None if part in weights.parts else part
    folder = Path(place.place) / (inside or "")
    if not place.is_hub and not folder.is_dir():
        where = "there is no such folder" if not Path(place.place).is_dir() else f"it has no folder '{part}'"
        hint = "model.source=FOLDER wants a whole diffusers folder"
        raise ModelError(f"model.source={place.place}: {where}", hint)
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True} | ({"subfolder": inside} if inside else {})
    if place.is_hub:
        options["revision"] = place.revision
    is_network = issubclass(kind, ModelMixin | PreTrainedModel)
    try:
        if weights.blank and (words := _read(weights, f"{part}/blank.json")):
            return BlankTokenizer(**words)
        if is_network and weights.blank:
            return _blank(kind, place.place, options, **changes)
        if is_network:
            options |= {"use_safetensors": True, "variant": place.variant, "torch_dtype": torch.float32}
        return kind.from_pretrained(place.place, **options | changes)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:100]
        if place.is_hub and not _read(place, "model_index.json") and not _read(place, "config.json"):
            revision = f" --revision {place.revision}" if place.revision else ""
            raise ModelError(
                f"{part} of {place} is not in the Hub cache {constants.HF_HUB_CACHE}",
                f"fetch it once with: hf download {place.place}{revision}; or give a folder: model.source=FOLDER",
            ) from error
        raise ModelError(
            f"{place}: '{part}' cannot be loaded as {kind.__name__}: {reason}",
            "only safetensors weights in the diffusers layout are read; model.variant names variant files (fp16 or null)",
        ) from error


def _blank(kind: Any, place: str, options: dict[str, Any], *, torch_dtype: str = "") -> Any:  # noqa: ANN401
    """A network of its config, on the meta device, in fp32 or (auto) in the precision that the config names."""
    if not issubclass(kind, PreTrainedModel):
        told: Any = kind.load_config(place, **options)
        with torch.device("meta"):
            return kind.from_config(told).eval()
    config_class: Any = kind.config_class
    told = config_class.from_pretrained(place, **options)
    with torch.device("meta"):
        network: Any = kind(told).eval()
    return network.to(told.dtype) if torch_dtype == "auto" and told.dtype else network


def pipeline_of(weights: Weights) -> str | None:
    """The pipeline that a model's index names; None where there is no index to read."""
    return _read(weights, "model_index.json").get("_class_name")


def class_of(weights: Weights, part: str) -> str | None:
    """The class that a part was saved as, by the model's index."""
    named = _read(weights, "model_index.json").get(part)
    return named[1] if isinstance(named, list) and len(named) == 2 else None


def _read(weights: Weights, name: str) -> dict[str, Any]:
    path: Any = Path(weights.place) / name
    if weights.is_hub:
        path = try_to_load_from_cache(weights.place, name, revision=weights.revision)
    try:
        found = json.loads(Path(path).read_text()) if isinstance(path, str | Path) else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
