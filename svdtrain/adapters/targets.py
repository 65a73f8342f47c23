"""Which modules an adapter sits on: patterns resolved against real module names, and the halves of a denoiser."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from svdtrain.foundation.errors import ModelError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor, nn

    from svdtrain.adapters.spec import AdapterSpec

Half = Literal["spatial", "temporal"]
_TEMPORAL = re.compile(r"temporal_|time_stack|temp_attentions|temp_convs|transformer_in|motion_modules")


def half_of(module_name: str) -> Half:
    """The half a module belongs to; the marks are those of all diffusers video UNets."""
    return "temporal" if _TEMPORAL.search(module_name) else "spatial"


def adaptable_weights(denoiser: nn.Module) -> dict[str, Tensor]:
    """The modules an adapter can sit on, by their full names without adapters, and their weights."""
    from torch import nn

    return {
        name.replace(".base_layer", ""): module.weight
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d) and ".lora_" not in name
    }


def within(blocks: Collection[str], pattern: str) -> str:
    """The pattern, for names under one of the blocks only."""
    return rf"(?=(?:{'|'.join(map(re.escape, blocks))})\.)(?:{pattern})" if blocks else pattern


def _blocks_above(name: str) -> list[str]:
    """down_blocks.1.attentions.0.x.y -> down_blocks, down_blocks.1, down_blocks.1.attentions, …"""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, min(len(parts), 5))]


def _nearest(pattern: str, names: list[str]) -> list[str]:
    """Three modules whose last parts look most like the pattern's plain words."""
    words = re.sub(r"[^A-Za-z0-9_.]", "", pattern).strip(".").split(".")
    by_ending = {".".join(name.split(".")[-len(words) :]): name for name in reversed(names)}
    close = difflib.get_close_matches(".".join(words), by_ending, n=3, cutoff=0.0)
    return [by_ending[ending] for ending in close]


def matching_modules(names: Collection[str], spec: AdapterSpec) -> dict[str, str]:
    """Module name -> half of the spec. Raises ModelError for a pattern or block that matches nothing, naming the nearest."""
    for block in spec.blocks:
        if not any(name.startswith(f"{block}.") for name in names):
            known = sorted({known for name in names for known in _blocks_above(name)})
            raise ModelError(f"adapter.blocks: no block '{block}' in this model", nearest(block, known))
    chosen: dict[str, str] = {}
    for half, settings in spec.halves.items():
        try:
            pattern = re.compile(within(spec.blocks, settings.pattern))
        except re.error as error:
            raise ModelError(
                f"adapter.pattern={settings.pattern}: not a regular expression ({error})", "escape dots as \\."
            ) from error
        matched = [name for name in names if pattern.fullmatch(name)]
        if not matched and spec.blocks and any(re.fullmatch(settings.pattern, name) for name in names):
            where = ", ".join(spec.blocks)
            raise ModelError(
                f"adapter.blocks: {where} hold none of the {half} modules", "other blocks, or other targets"
            )
        if not matched:
            near = _nearest(settings.pattern, list(names))
            raise ModelError(
                f"adapter.pattern={settings.pattern}: matches 0 of {len(names)} modules ({half})",
                f"the pattern must match a whole name; nearest: {', '.join(near)}",
            )
        chosen.update(dict.fromkeys(matched, half))
    return chosen
