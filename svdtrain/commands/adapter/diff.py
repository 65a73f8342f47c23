"""`python -m svdtrain adapter diff`: how alike two adapters are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import plain, refuse_other_bases
from svdtrain.adapters.measures import block_of, block_place, product
from svdtrain.adapters.targets import half_of
from svdtrain.commands.adapter.opening import open_base, opened, say
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from svdtrain.adapters.layer import Layer
    from svdtrain.config.toolbox import DiffConfig


def run(config: DiffConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Norms and the cosine of the two changes, by block; and the modules that only one has."""
    base = open_base(config.base)
    first, second = (opened(file, base) for file in config.files)
    refuse_other_bases([first, second])
    groups: dict[str, list[float]] = {}
    for module in sorted(first.layers.keys() | second.layers.keys()):
        products = _products(
            *(plain(module, f.layers[module]) if module in f.layers else None for f in (first, second))
        )
        for name in (f"{block_of(module)} {half_of(module)}", "all"):
            groups[name] = [a + b for a, b in zip(groups.get(name, [0.0] * 3), products, strict=True)]
    rows = [
        [
            name,
            f"{math.sqrt(aa):.4g}",
            f"{math.sqrt(bb):.4g}",
            _cosine(aa, bb, ab),
            f"{_apart(aa, bb, ab):.1%}",
        ]
        for name, (aa, bb, ab) in sorted(groups.items(), key=_place)
    ]
    say("Norms of each change (Frobenius), and that of their difference as a share of the larger:\n")
    say(text_table(["block", "first", "second", "cosine", "difference"], rows))
    for name, one, other in (("first", first, second), ("second", second, first)):
        if only := sorted(one.layers.keys() - other.layers.keys()):
            say(f"only in the {name}: {len(only)} modules, '{only[0]}' …")


def _products(first: Layer | None, second: Layer | None) -> list[float]:
    return [
        product(first, first) if first else 0.0,
        product(second, second) if second else 0.0,
        product(first, second) if first and second else 0.0,
    ]


def _place(group: tuple[str, list[float]]) -> tuple[bool, tuple[int, int], str]:
    """In the order of the network, the sum of all at the end."""
    return group[0] == "all", block_place(group[0].partition(" ")[0]), group[0]


def _cosine(aa: float, bb: float, ab: float) -> str:
    return f"{ab / math.sqrt(aa * bb):.3f}" if aa and bb else ""


def _apart(aa: float, bb: float, ab: float) -> float:
    """|a - b| of the larger of the two."""
    return math.sqrt(max(aa + bb - 2 * ab, 0.0) / max(aa, bb)) if max(aa, bb) else 0.0
