"""`python -m svdtrain adapter targets`: what a fit with these words would adapt; a dry run without weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from svdtrain.adapters.layout import BaseWeights, Layout, base_folder, packaged_layouts
from svdtrain.adapters.measures import block_of, block_place
from svdtrain.adapters.targets import half_of, matching_modules
from svdtrain.commands.adapter.opening import say
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import ModelError, UsageError
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.reporting.tables import text_table
from svdtrain.training.build import adapter_spec

if TYPE_CHECKING:
    from svdtrain.config.schema import ModelConfig, TargetsConfig


def run(config: TargetsConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Counts by block and half; with every=true each module's name."""
    if config.adapter.kind == "full":
        raise UsageError("adapter.kind: full trains every weight", "adapter.kind=lora")
    quiet_packages()
    layout = _layout(config.model)
    spec = adapter_spec(config, spec_of(config.model.family))
    halves = matching_modules(layout.shapes, spec)
    if config.every:
        for module in halves:
            say(module)
    counts = Counter((block_of(module), half_of(module)) for module in halves)
    sizes: Counter[tuple[str, str]] = Counter()
    for module, half in halves.items():
        rows, columns = layout.shapes[module][0], math.prod(layout.shapes[module][1:])
        sizes[block_of(module), half_of(module)] += spec.halves[half].rank * (rows + columns)
    low_rank = spec.kind in ("lora", "rslora", "dora")
    header = ["block", "half", "modules", *(["parameters"] if low_rank else [])]
    cells = [
        [*key, str(counts[key]), *([f"{sizes[key]:,}"] if low_rank else [])]
        for key in sorted(counts, key=lambda key: (block_place(key[0]), key[1]))
    ]
    say(text_table(header, cells))
    total = f", {sizes.total():,} trained parameters" if low_rank else ""
    say(f"{len(halves)} of {len(layout.shapes)} modules{total}")


def _layout(model: ModelConfig) -> Layout:
    """Of the model's own weights where they are at hand, else the packaged one of its name or family."""
    place = model.source or (model.name if model.id is None else f"{model.id}@{model.revision}")
    try:
        return BaseWeights.of_pipeline(base_folder(place)).layout
    except ModelError:
        published = packaged_layouts()
        known = published.get(model.name) or published.get(model.family)
        if model.source or known is None:
            raise
        return known
