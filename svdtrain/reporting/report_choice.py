"""A choice as a part of a run's report: which step, which strength, and what was tried. choice.json is not to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.reporting.page import Section, Table, Tile
from svdtrain.reporting.told import at, estimate, listed, number, table, text

if TYPE_CHECKING:
    from svdtrain.reporting.run_files import RunFiles

CLIP = "held-out clip"
RATIOS = (("held-out loss", "base's"), ("motion", "base's"), ("motion", "clips'"), ("generic loss", "base's"))
MOST = 60
"""Rows of a table."""


def strength(told: object) -> str:
    """0.75, or 0.8/0.5 for spatial and temporal; empty where it is not told."""
    spatial, temporal = number(told, "spatial"), number(told, "temporal")
    if spatial is None or temporal is None:
        return ""
    return f"{spatial:g}" if spatial == temporal else f"{spatial:g}/{temporal:g}"


def tile(run: RunFiles) -> Tile | None:
    """What to use."""
    step, best = number(run.choice, "step"), strength(at(run.choice, "strength"))
    if step is None:
        return None
    if best == "0":
        return Tile("Use", "the base", "no strength was better on clips it never saw")
    halves = " (spatial/temporal)" if "/" in best else ""
    return Tile("Use", f"step {step:,.0f}", f"at strength {best}{halves}" if best else "no strength may be used")


def motion_tile(run: RunFiles) -> Tile | None:
    """Whether videos still move, at the chosen strength or as they were evaluated."""
    swept = next((one for one in listed(run.choice, "sweep") if text(one, "says") == "chosen"), None)
    to_base, to_clips = number(swept, "motion", "value"), number(swept, "motion_to_clips", "value")
    lost = False
    if to_base is None or to_clips is None:
        arm = next(iter(table(run.evaluation, "verdicts")), "")
        values = [number(run.evaluation, "metrics", "motion", "arms", name, "value") for name in (arm, "base", CLIP)]
        if None in values or not (values[1] and values[2]):
            return None
        to_base, to_clips = (values[0] or 0) / values[1], (values[0] or 0) / values[2]
        found = listed(run.evaluation, "verdicts", arm, "findings")
        lost = any(text(one).startswith("motion is lost") for one in found)
    return Tile("Motion", "lost" if lost else "kept", f"{to_base:.0%} of the base's, {to_clips:.0%} of the clips'")


def of_choice(run: RunFiles) -> str:
    """Words of `generate`: what was chosen, or the run's adapter as it is."""
    name, best = run.folder.resolve().name, strength(at(run.choice, "strength"))
    if not best or best == "0" or not (run.folder / "best").exists():
        return f"adapter={name}"
    return f"adapter={name}/best strength={best}"


def section(run: RunFiles) -> Section | None:
    """The sentence, the steps, the strengths."""
    sentence = text(run.choice, "sentence")
    steps = [
        (f"{step:,.0f}", estimate(at(one, "held_out")), text(one, "loses_motion") or _chosen(one))
        for one in listed(run.choice, "steps")[:MOST]
        if (step := number(one, "step")) is not None
    ]
    sweep = [
        (
            strength(at(one, "strength")),
            *(estimate(at(one, name)) for name in ("held_out", "motion", "motion_to_clips", "generic")),
            "; ".join(map(text, listed(one, "against"))) or text(one, "says"),
        )
        for one in listed(run.choice, "sweep")[:MOST]
        if strength(at(one, "strength"))
    ]
    tables = []
    if len(steps) > 1:
        tables.append(Table(("step", "held-out loss / base's", ""), tuple(steps), frozenset({"step"})))
    if sweep:
        columns = ("strength", *(f"{what} / {whose}" for what, whose in RATIOS), "")
        told = [place for place in range(len(columns)) if any(row[place] for row in sweep)]
        rows = tuple(tuple(row[place] for place in told) for row in sweep)
        tables.append(Table(tuple(columns[place] for place in told), rows, frozenset({"strength"})))
    if not sentence and not tables:
        return None
    return Section("choice", "Which step, which strength", sentence, tables=tuple(tables))


def _chosen(one: object) -> str:
    return "chosen" if at(one, "chosen") is True else ""
