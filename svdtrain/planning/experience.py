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
"""Steps that a run must have made; runs of a card that count; run folders that are read, the newest first."""
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
    """Words for it."""
    return f"the table's times {known.ratio:.2f}, by {known.runs} run{'s' * (known.runs > 1)}"


def experience(model: str, runs: Path = RUNS) -> dict[str, Experience]:
    """Of a model, by name of the card; from runs/NAME/TIME/run.json. What cannot be read, or tells no times, does not count."""
    files = sorted(runs.glob("*/*/run.json"), key=_changed, reverse=True)[:LOOKED_AT]
    ratios: dict[str, list[float]] = {}
    for file in files:
        if found := _ratio(file, model):
            ratios.setdefault(found[0], []).append(found[1])
    return {name: Experience(median(every[:NEWEST]), len(every[:NEWEST])) for name, every in ratios.items()}


def _ratio(file: Path, model: str) -> tuple[str, float] | None:
    try:
        fields = json.loads(file.read_text()) if file.stat().st_size < LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None
    card, speed, plan = card_named(text(fields, "hardware")), at(fields, "speed"), at(fields, "plan")
    steps, took, table = number(speed, "steps"), number(speed, "settled_seconds"), number(plan, "table_seconds")
    if not card or text(plan, "model") != model or number(speed, "compile_seconds"):
        return None
    if text(fields, "state") not in ("done", "stopped"):  # what went on and did not end has an older one's times
        return None
    if not (took and table and took > 0 and table > 0) or (steps or 0) < FEWEST_STEPS:
        return None
    return card, took / table


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
