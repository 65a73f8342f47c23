"""Several runs beside each other: held-out losses, what differs between their settings, which one came out best."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from svdtrain.reporting.curves import curves
from svdtrain.reporting.page import Section, Table, Tile, Verdict
from svdtrain.reporting.report_facts import without_folders
from svdtrain.reporting.report_findings import MEAN, marks
from svdtrain.reporting.tables import duration
from svdtrain.reporting.told import at, number, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from svdtrain.reporting.run_files import RunFiles

    Runs = Mapping[str, RunFiles]

YARDSTICK = (("model", "name"), ("model", "id"), ("model", "source"), ("validation", "clips"), ("validation", "sigmas"))
"""Settings without which losses of two runs are of different things."""
PLACES = ("name", "run_dir", "resume", "supervise", "privacy", "change")
MOST_ROWS, MOST_LETTERS = 60, 60


def labels_of(folders: list[Path]) -> list[str]:
    """The last parts of their paths, as few as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depths = range(1, max(map(len, parts)) + 1)
    depth = next((d for d in depths if len({one[-d:] for one in parts}) == len(parts)), depths[-1])
    return ["/".join(one[-depth:]) for one in parts]


def alike(runs: Runs) -> str:
    """Empty where their losses can be compared; else why not."""
    for key in YARDSTICK:
        if len({text({"one": str(at(run.config, *key))}, "one") for run in runs.values()}) > 1:
            return f"{'.'.join(key)} differs"
    if len({text(run.fields, "dataset", "fingerprint") for run in runs.values()}) > 1:
        return "they were trained on different clips"
    return ""


def best_look(run: RunFiles) -> tuple[float, int] | None:
    """(ratio, step) of the least held-out loss."""
    looks = [(ratio, step) for step, ratio in run.curves.get(MEAN, []) if step]
    return min(looks, default=None)


def verdict(runs: Runs) -> Verdict:
    """Which has the least held-out loss, if that can be said."""
    found = {name: best for name, run in runs.items() if (best := best_look(run))}
    noted = tuple(f"{name}: {mark}" for name, run in runs.items() for mark in marks(run))
    if odd := alike(runs):
        return Verdict(
            "mild", f"Their losses cannot be compared: {odd}.", (), "Each run's own report says more.", noted
        )
    if len(found) < len(runs):
        return Verdict("mild", "No verdict: not every run has a look at held-out clips.", (), "", noted)
    order = sorted(found, key=found.__getitem__)
    says = f"The least held-out loss has {order[0]}: {found[order[0]][0]:.3f} of the base's, at step {found[order[0]][1]:,}."
    lines = tuple(f"{name}: {found[name][0]:.3f} at step {found[name][1]:,}." for name in order[1:])
    hint = (
        "Differences of a few percent are noise between seeds; look at the videos, and at motion (evaluate adapters=…)."
    )
    return Verdict("good", says, lines, hint, noted)


def tiles(runs: Runs) -> tuple[Tile, ...]:
    """The best look of each."""
    found = ((name, best_look(run)) for name, run in runs.items())
    return tuple(Tile(name, f"{best[0]:.1%}", f"of the base's loss, step {best[1]:,}") for name, best in found if best)


def losses(runs: Runs) -> Section | None:
    """A curve a run: of all noise levels, of the least and of the highest."""
    levels = sorted(_levels(runs), key=lambda name: float(name.removeprefix(f"{MEAN}_")))
    wanted = {MEAN: "All noise levels"}
    if len(levels) > 1:
        wanted |= {levels[0]: "The least noise: texture and detail", levels[-1]: "The most noise: layout and motion"}
    charts = []
    for metric, title in wanted.items():
        if lines := {name: run.curves[metric] for name, run in runs.items() if metric in run.curves}:
            charts.append(curves(title, lines, even=1.0))
    if not charts:
        return None
    intro = "Held-out loss as a ratio to the base's: 1 (dashed) is the base, less is better."
    return Section("losses", "What they learnt", intro, charts=tuple(charts))


def _levels(runs: Runs) -> set[str]:
    """Metrics of one noise level that all runs have."""
    each = (
        {name for name in run.curves if re.fullmatch(rf"{MEAN}_\d{{1,6}}(\.\d{{1,6}})?", name)} for run in runs.values()
    )
    return set.intersection(*each)


def outcomes(runs: Runs) -> Section:
    """A row a run."""
    rows = []
    for name, run in runs.items():
        best, seconds = best_look(run), number(run.fields, "speed", "training_seconds")
        peak = number(run.fields, "speed", "peak_bytes")
        last = run.curves.get(MEAN, [(0, None)])[-1][1]
        rows.append((
            name,
            text(run.fields, "state"),
            text(run.fields, "step"),
            "" if best is None else f"{best[0]:.3f} (step {best[1]:,})",
            "" if last is None else f"{last:.3f}",
            text(run.fields, "verdict", "kind"),
            "" if seconds is None else duration(seconds),
            "" if peak is None else f"{peak / 2**30:.1f} GiB",
        ))  # fmt: skip
    columns = ("run", "state", "steps", "least loss / base's", "last", "verdict", "training", "peak memory")
    numbers = frozenset({"steps", "least loss / base's", "last"})
    return Section("outcomes", "What came of them", "", tables=(Table(columns, tuple(rows), numbers),))


def differences(runs: Runs) -> Section | None:
    """Settings that are not equal in all."""
    flat = {name: dict(_flat(run.config)) for name, run in runs.items()}
    keys = sorted({key for one in flat.values() for key in one})
    rows = []
    for key in keys:
        values = [flat[name].get(key, "–") for name in runs]
        if key not in PLACES and len(set(values)) > 1:
            rows.append((key, *values))
    if not rows:
        return None
    more = f" {len(rows) - MOST_ROWS} more are not shown." if len(rows) > MOST_ROWS else ""
    told = Table(("setting", *runs), tuple(rows[:MOST_ROWS]))
    return Section("differences", "What differs", f"All other settings are equal.{more}", tables=(told,), wide=True)


def _flat(tree: Any, before: str = "") -> list[tuple[str, str]]:  # noqa: ANN401
    """Dotted keys and what stands there."""
    if isinstance(tree, dict):
        return [pair for key, one in tree.items() for pair in _flat(one, f"{before}.{key}" if before else str(key))]
    told = text({"one": tree if isinstance(tree, str) else repr(tree)}, "one")
    return [(before, without_folders(told)[:MOST_LETTERS])]
