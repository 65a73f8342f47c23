"""Which modules an adapter sits on: patterns resolved against real module names, and the halves of a denoiser."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from torch import nn

from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from svdtrain.adapters.spec import AdapterSpec

Half = Literal["spatial", "temporal"]
_TEMPORAL = re.compile(r"temporal_|temp_attentions|temp_convs|transformer_in|motion_modules")


def half_of(module_name: str) -> Half:
    """The half a module belongs to; the marks are those of all diffusers video UNets."""
    return "temporal" if _TEMPORAL.search(module_name) else "spatial"


def adaptable_modules(denoiser: nn.Module) -> list[str]:
    """Full names of the modules an adapter can sit on."""
    return [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)]


def _nearest(pattern: str, names: list[str]) -> list[str]:
    """Three modules whose last parts look most like the pattern's plain words."""
    words = re.sub(r"[^A-Za-z0-9_.]", "", pattern).strip(".").split(".")
    by_ending = {".".join(name.split(".")[-len(words) :]): name for name in reversed(names)}
    close = difflib.get_close_matches(".".join(words), by_ending, n=3, cutoff=0.0)
    return [by_ending[ending] for ending in close]


def matching_modules(denoiser: nn.Module, spec: AdapterSpec) -> dict[str, str]:
    """Module name -> half of the spec. Raises ModelError for a pattern that matches nothing, naming the nearest modules."""
    names = adaptable_modules(denoiser)
    chosen: dict[str, str] = {}
    for half, settings in spec.halves.items():
        try:
            pattern = re.compile(settings.pattern)
        except re.error as error:
            raise ModelError(
                f"adapter.pattern={settings.pattern}: not a regular expression ({error})", "escape dots as \\."
            ) from error
        matched = [name for name in names if pattern.fullmatch(name)]
        if not matched:
            near = _nearest(settings.pattern, names)
            raise ModelError(
                f"adapter.pattern={settings.pattern}: matches 0 of {len(names)} modules ({half})",
                f"the pattern must match a whole name; nearest: {', '.join(near)}",
            )
        chosen.update(dict.fromkeys(matched, half))
    return chosen
