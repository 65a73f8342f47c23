"""What an adapter's layers amount to: sizes of changes, effective ranks, likeness of two. Without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.layer import A, B, Layer, flat_up
from svdtrain.adapters.targets import half_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Measure:
    """One module's change."""

    norm: float
    """Frobenius."""
    effective_rank: float
    """exp of the entropy of its normalised singular values (Roy & Vetterli 2007); 0 where nothing changes."""
    rank: int | None
    relative: float | None
    """norm / the weight's, where the base is at hand."""


@dataclass(frozen=True)
class Row:
    """One half of one block."""

    block: str
    half: str
    modules: int
    norm: float
    """Root of the sum of squares."""
    effective_rank: float
    """Mean over its modules that change anything."""
    relative: float | None
    dead: int
    """Modules that change nothing."""


def measure(layer: Layer, weight: Array | None = None) -> Measure:
    """The size of a layer's change; a DoRA's without its base is that of its LoRA part."""
    part = Layer({A: layer.parts[A], B: layer.parts[B]}, layer.scale) if layer.kind == "dora" else layer
    if layer.kind == "dora" and weight is not None:
        values = np.linalg.svdvals(layer.delta(weight))
    else:
        values = _values_of_lora(part) if part.kind == "lora" else part.singular_values()
    norm = float(np.sqrt((values.astype(np.float64) ** 2).sum()))
    relative = None if weight is None else norm / max(float(np.linalg.norm(weight)), 1e-30)
    return Measure(norm, _effective_rank(values), layer.rank, relative)


def _values_of_lora(layer: Layer) -> Array:
    """Singular values by Gram matrices: of rank by rank, and quick; small ones are less exact than by QR."""
    up = flat_up(layer.parts[B]).astype(np.float64)
    down = layer.parts[A].reshape(len(layer.parts[A]), -1).astype(np.float64)
    gram = up.T @ up
    size = np.trace(gram)
    if not size:
        return np.zeros(1)
    root = np.linalg.cholesky(gram + 1e-12 * size * np.eye(len(gram)))
    squares = np.linalg.eigvalsh(root.T @ (down @ down.T) @ root)
    values = np.sqrt(np.maximum(squares, 0.0))[::-1]
    # Two layers that cancel leave their rounding: nothing that fp32 factors of this size could mean.
    values[values < 1e-6 * np.sqrt(size * np.square(down).sum())] = 0.0
    return abs(layer.scale) * values


def _effective_rank(values: Array) -> float:
    total = float(values.sum())
    if total <= 0:
        return 0.0
    share = values[values > values.max() * 1e-7].astype(np.float64) / total
    return float(np.exp(-(share * np.log(share)).sum()))


def block_of(module: str) -> str:
    """down_blocks.1.attentions.0.… -> down_blocks.1; transformer_blocks.3.… -> transformer_blocks.3; native names likewise."""
    match = re.match(r"((?:down|up|input|output|transformer)_blocks\.\d+|[^.]+)", module)
    return match[1] if match else module


def by_block(layers: Mapping[str, Layer], weight: Callable[[str], Array] | None = None) -> list[Row]:
    """Rows in the order of the network, spatial before temporal."""
    groups: dict[tuple[str, str], list[tuple[Measure, float]]] = {}
    for module, layer in layers.items():
        base = weight(module) if weight else None
        size = float(np.linalg.norm(base)) if base is not None else 0.0
        groups.setdefault((block_of(module), half_of(module)), []).append((measure(layer, base), size))
    rows: list[Row] = []
    for (block, half), found in sorted(groups.items(), key=lambda item: (block_place(item[0][0]), item[0][1])):
        norm = float(np.sqrt(sum(m.norm**2 for m, _ in found)))
        alive = [m.effective_rank for m, _ in found if m.norm > 0]
        whole = float(np.sqrt(sum(size**2 for _, size in found)))
        relative = norm / whole if weight and whole else None
        mean = sum(alive) / len(alive) if alive else 0.0
        rows.append(Row(block, half, len(found), norm, mean, relative, len(found) - len(alive)))
    return rows


def block_place(block: str) -> tuple[int, int]:
    """Sorts blocks in the order of the network."""
    name, _, number = block.partition(".")
    order = ("down_blocks", "input_blocks", "mid_block", "middle_block", "up_blocks", "output_blocks")
    return (order.index(name) if name in order else -1, int(number) if number.isdigit() else 0)


def product(first: Layer, second: Layer) -> float:
    """The inner product of two changes, by their factors where both are LoRA."""
    if first.kind == second.kind == "lora":
        ups = flat_up(first.parts[B]).T.astype(np.float64) @ flat_up(second.parts[B])
        downs = first.parts[A].reshape(len(first.parts[A]), -1).astype(np.float64)
        downs = downs @ second.parts[A].reshape(len(second.parts[A]), -1).T
        return first.scale * second.scale * float((ups * downs).sum())
    return float((first.delta().astype(np.float64) * second.delta()).sum())
