"""What a file that may be damaged, or anybody's, says: numbers, texts and tables, or nothing."""

from __future__ import annotations

import math
from typing import Any

LONGEST = 2000


def at(tree: object, *path: str) -> object:
    """What stands there, or None."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def number(tree: object, *path: str) -> float | None:
    """A finite number."""
    found = at(tree, *path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        return float(found) if math.isfinite(found) else None
    except OverflowError:
        return None


def text(tree: object, *path: str) -> str:
    """What can be printed of it, on one line; numbers are spelled."""
    found = at(tree, *path)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    try:
        return "".join(filter(str.isprintable, " ".join(str(found).split())))[:LONGEST]
    except ValueError:  # a number of too many digits
        return ""


def table(tree: object, *path: str) -> dict[str, Any]:
    """An object; {} for anything else."""
    found = at(tree, *path)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def listed(tree: object, *path: str) -> list[Any]:
    """A list; [] for anything else."""
    found = at(tree, *path)
    return found if isinstance(found, list) else []


def estimate(tree: object) -> str:
    """0.75 (0.5 to 1), with the ends of an interval where there are any."""
    value, low, high = (number(tree, name) for name in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g} to {high:.3g})"
