"""A model config to a loaded family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.families.protocol import Noise
from svdtrain.families.registry import family_names, load_family, spec_of
from svdtrain.families.weights import Weights
from svdtrain.foundation.errors import ModelError, UsageError, nearest
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svdtrain.config.schema import ModelConfig, NoiseLevels
    from svdtrain.families.protocol import ModelFamily


def build_weights(model: ModelConfig, *, blank: bool = False) -> Weights:
    """The local folder, the Hub id, or the package's own base; blank: what of it needs no weights."""
    parts = {"motion_adapter": _part(model.motion_adapter)} if model.motion_adapter else {}
    if model.source or model.id is None:
        place = model.source or str(packaged("assets") / model.name)
        return Weights(place, variant=model.variant, parts=parts, blank=blank)
    return Weights(model.id, model.revision, model.variant, is_hub=True, parts=parts, blank=blank)


def build_family(model: ModelConfig, *, blank: bool = False) -> ModelFamily:
    """The model with its weights, on the CPU in fp32; blank: without them, on the meta device.

    UsageError for a size that its checkpoint cannot do.
    """
    family = load_family(
        model.family,
        weights=build_weights(model, blank=blank),
        noise=Noise(_levels(model.noise_levels), _levels(model.condition_noise), model.offset_noise),
    )
    near = family.nearest_size(model.frames, model.height, model.width)
    for key in ("frames", "height", "width"):
        if (seen := getattr(model, key)) != (mend := getattr(near, key)):
            raise UsageError(f"model.{key}: {seen}, and this checkpoint makes {near.rule}", f"model.{key}={mend}")
    return family


def refuse_sizes(family: ModelFamily, sizes: Iterable[tuple[int, int, int]]) -> None:
    """Raise UsageError for the first of these frames, heights and widths that the checkpoint cannot do."""
    for size in sizes:
        near = family.nearest_size(*size)
        if size != (near.frames, near.height, near.width):
            frames, height, width = size
            seen = f"clips of {frames} frames of {height} x {width}, and this checkpoint makes {near.rule}"
            raise UsageError(
                f"data.source: {seen}", "prepare with other buckets, or data.buckets=false data.stills=false"
            )


def family_of_folder(folder: Path) -> ModelFamily:
    """The model of a diffusers pipeline's folder, by the pipeline that it names. Not for training: its noise levels are any.

    Raises ModelError for a pipeline of no known family.
    """
    try:
        name = str(json.loads((folder / "model_index.json").read_text()).get("_class_name"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base={folder}: no pipeline (model_index.json: {error})", "a whole diffusers folder"
        ) from error
    known = {spec_of(family).pipeline_class: family for family in family_names()}
    if name not in known:
        raise ModelError(f"base={folder}: a {name}, which no family samples", nearest(name, known))
    any_levels = LogNormalLevels(0.0, 1.0, 0.002, 700.0)
    return load_family(known[name], weights=Weights(str(folder)), noise=Noise(any_levels, any_levels))


def _part(place: str) -> Weights:
    """A folder, or ID@COMMIT."""
    if Path(place).is_dir():
        return Weights(place)
    name, _, revision = place.partition("@")
    return Weights(name, revision or None, is_hub=True)


def _levels(levels: NoiseLevels) -> LogNormalLevels:
    return LogNormalLevels(levels.mean, levels.std, levels.minimum, levels.maximum)
