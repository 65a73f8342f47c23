"""The table of families. A family is one row here, one file, one model config."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from svdtrain.families.weights import pipeline_of
from svdtrain.foundation.errors import ModelError, UsageError, nearest

if TYPE_CHECKING:
    from svdtrain.families.protocol import FamilySpec, ModelFamily, Noise
    from svdtrain.families.weights import Weights

FAMILIES: dict[str, tuple[str, str]] = {
    "svd": ("svdtrain.families.svd", "SVDFamily"),
    "unet3d": ("svdtrain.families.unet3d", "UNet3DFamily"),
    "animatediff": ("svdtrain.families.animatediff", "AnimateDiffFamily"),
    "i2vgen_xl": ("svdtrain.families.i2vgen_xl", "I2VGenXLFamily"),
    "cogvideox": ("svdtrain.families.cogvideox", "CogVideoXFamily"),
    "cogvideox_image": ("svdtrain.families.cogvideox", "CogVideoXImageFamily"),
}


OUTSIDE = "svdtrain.families"
"""The group of entry points by which installed packages bring families of their own."""


def family_names() -> list[str]:
    """Of this package, then of others."""
    return [*FAMILIES, *(name for name in entry_points(group=OUTSIDE).names if name not in FAMILIES)]


def family_class(name: str) -> Any:  # noqa: ANN401  (each family's class has its own `load`)
    """The class of a family by name; UsageError with the nearest name when there is none."""
    if name in FAMILIES:
        module, attribute = FAMILIES[name]
        return getattr(import_module(module), attribute)
    for outside in entry_points(group=OUTSIDE, name=name):
        return outside.load()
    raise UsageError(f"model.family: no family '{name}'", nearest(name, family_names()))


def load_family(name: str, weights: Weights, noise: Noise) -> ModelFamily:
    """Load a model of a family. ModelError for a folder that its own index calls the pipeline of another."""
    kind, found = family_class(name), pipeline_of(weights)
    wanted = (kind.spec.pipeline_class, *kind.spec.also_loads)
    if found not in (None, *wanted):
        others = [other for other in family_names() if spec_of(other).pipeline_class == found]
        mend = f"a model= of the family {others[0]}" if others else f"a folder of {' or '.join(wanted)}"
        raise ModelError(f"{weights} holds a {found}, and model.family={name} loads {' or '.join(wanted)}", mend)
    return kind.load(weights=weights, noise=noise)


def spec_of(name: str) -> FamilySpec:
    """Facts about a family, without weights."""
    return family_class(name).spec
