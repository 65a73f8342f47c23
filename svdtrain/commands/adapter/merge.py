"""`python -m svdtrain adapter merge`: one adapter of several."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, merged
from svdtrain.commands.adapter.opening import format_for, open_base, opened, say, target, write
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import MergeConfig


def run(config: MergeConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """FILE:WEIGHT …; what a cut to a rank leaves out is told."""
    base = open_base(config.base)
    weighted = [_weighted(word) for word in config.files]
    files = [(opened(path, base), weight) for path, weight in weighted]
    first = files[0][0]
    target(config.out, format_for(config, first))
    layers, loss = merged(files, config.method, Cut(config.rank), density=config.density, seed=config.seed)
    weights = "+".join(f"{weight:g}" for _, weight in files)
    recipes = list(dict.fromkeys(file.info.recipe for file, _ in files if file.info.recipe))
    info = replace(first.info, recipe="+".join(recipes), results="", steps="", targets="")
    write(config, layers, replace(first, info=info), f"merge {config.method} {weights}", computed=True)
    if loss.whole:
        say(f"left out: {loss.share:.2%} of the change (Frobenius)")


def _weighted(word: str) -> tuple[str, float]:
    """FILE:WEIGHT. A file whose own name ends like that is taken as it is."""
    path, colon, number = word.rpartition(":")
    if not colon or Path(word).exists():
        return word, 1.0
    try:
        weight = float(number)
    except ValueError as error:
        raise ModelError(f"{word}: '{number}' is no weight", "FILE:0.8") from error
    if not math.isfinite(weight):
        raise ModelError(f"{word}: the weight is {number}", "a finite number, 1 as trained")
    return path, weight
