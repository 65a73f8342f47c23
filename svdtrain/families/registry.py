"""The table of families. A family is one row here, one file, one model config."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import UsageError, nearest

if TYPE_CHECKING:
    from svdtrain.families.protocol import FamilySpec, ModelFamily

FAMILIES: dict[str, tuple[str, str]] = {
    "svd": ("svdtrain.families.svd", "SVDFamily"),
    "unet3d": ("svdtrain.families.unet3d", "UNet3DFamily"),
}


def family_class(name: str) -> Any:  # noqa: ANN401  (each family's class has its own `load`)
    """The class of a family by name; UsageError with the nearest name when there is none."""
    if name not in FAMILIES:
        raise UsageError(f"model.family: no family '{name}'", nearest(name, FAMILIES))
    module, attribute = FAMILIES[name]
    return getattr(import_module(module), attribute)


def load_family(name: str, **options: Any) -> ModelFamily:  # noqa: ANN401
    """Load a model of a family; the options are those of its `load`."""
    return family_class(name).load(**options)


def spec_of(name: str) -> FamilySpec:
    """Facts about a family, without weights."""
    return family_class(name).spec
