"""`python -m svdtrain adapter merge`: one adapter of several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, merged
from svdtrain.commands.adapter.opening import format_for, open_base, opened, say, target, write
from svdtrain.config.strengths import even, read_strength
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from svdtrain.config.strengths import Strength
    from svdtrain.config.toolbox import MergeConfig


def run(config: MergeConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """FILE:WEIGHT …; what a cut to a rank leaves out is told."""
    base = open_base(config.base)
    weighted = [_weighted(word) for word in config.files]
    files = [(opened(path, base), weight) for path, weight in weighted]
    first = files[0][0]
    target(config.out, format_for(config, first))
    parts = [(file, weight._asdict()) for file, weight in files]
    layers, loss = merged(parts, config.method, Cut(config.rank), density=config.density, seed=config.seed)
    weights = "+".join(str(weight) for _, weight in files)
    recipes = list(dict.fromkeys(file.info.recipe for file, _ in files if file.info.recipe))
    info = replace(first.info, recipe="+".join(recipes), results="", steps="", targets="")
    write(config, layers, replace(first, info=info), f"merge {config.method} {weights}", computed=True)
    if loss.whole:
        say(f"left out: {loss.share:.2%} of the change (Frobenius)")


def _weighted(word: str) -> tuple[str, Strength]:
    """FILE:WEIGHT, FILE:SPATIAL/TEMPORAL. A file whose own name ends like that is taken as it is."""
    path, colon, number = word.rpartition(":")
    if not colon or Path(word).exists():
        return word, even(1)
    try:
        return path, read_strength(number)
    except ValueError as error:
        raise ModelError(f"{word}: '{number}' is no weight", "FILE:0.8, or FILE:0.8/0.5 by half") from error
