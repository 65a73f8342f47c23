"""What runs took on a card, beside what the table foretold of them: the factor by which later predictions are mended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from svdtrain.planning.cards import card_named
from svdtrain.reporting.told import at, number, text

RUNS = Path("runs")
"""Where fit puts them."""
FEWEST_STEPS, NEWEST, LOOKED_AT = 20, 20, 500
"""Steps that a run must have timed; runs of a card that count; run folders that are read, the newest first."""
LARGEST = 10_000_000
"""Bytes of a run.json that is read."""


@dataclass(frozen=True)
class Experience:
    """Of one card."""

    ratio: float = 1.0
    """Measured seconds of a step over the table's: the median of the runs."""
    runs: int = 0


NONE = Experience()


def by_runs(known: Experience) -> str:
    """Words behind a time; empty where the table stands alone."""
    return f" (the table's times {known.ratio:.2f}, by {known.runs} run{'s' * (known.runs > 1)})" if known.runs else ""


def experience(runs: Path = RUNS) -> dict[str, Experience]:
    """By name of the card, of runs/NAME/TIME/run.json. What cannot be read, or tells no times, does not count."""
    files = sorted(runs.glob("*/*/run.json"), key=_changed, reverse=True)[:LOOKED_AT]
    ratios: dict[str, list[float]] = {}
    for file in files:
        if found := _ratio(file):
            ratios.setdefault(found[0], []).append(found[1])
    return {name: Experience(median(every[:NEWEST]), len(every[:NEWEST])) for name, every in ratios.items()}


def _ratio(file: Path) -> tuple[str, float] | None:
    try:
        fields = json.loads(file.read_text()) if file.stat().st_size < LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None
    card, speed = card_named(text(fields, "hardware")), at(fields, "speed")
    steps, each, waits = (number(speed, name) for name in ("steps", "seconds_per_batch", "share_waiting_for_data"))
    table = number(fields, "plan", "table_seconds")
    if not (card and table and each and table > 0 and each > 0) or steps is None or steps < FEWEST_STEPS:
        return None
    if number(speed, "compile_seconds"):
        return None
    return card, each * (1 - min(max(waits or 0.0, 0.0), 0.99)) / table


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
