"""A choice as a part of a run's report: which step, which strength, and what was tried. choice.json is not to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.reporting.page import Section, Table, Tile
from svdtrain.reporting.told import at, estimate, listed, number, table, text

if TYPE_CHECKING:
    from svdtrain.reporting.run_files import RunFiles

CLIP = "held-out clip"
KEPT, FEWEST = 0.7, 4
"""Of the base's motion or the clips', and videos below which nothing is said: as evaluation/verdict.py has them."""
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
    """Whether videos still move: at the chosen strength, by intervals, or as they were evaluated, by means."""
    swept = next((one for one in listed(run.choice, "sweep") if text(one, "says") == "chosen"), None)
    ratios = [number(swept, name, "value") for name in ("motion", "motion_to_clips")]
    lows = [number(swept, name, "low") for name in ("motion", "motion_to_clips")]
    n, lost, whose = number(swept, "motion", "n") or 0, False, ""
    if None in ratios:
        verdicts = table(run.evaluation, "verdicts")
        arm = "adapter" if "adapter" in verdicts else next(iter(verdicts), "")
        whose = "" if arm == "adapter" else f"{arm}: "
        mine, base, clips = (_moves(run, name) for name in (arm, "base", CLIP))
        if mine is None or not base or not clips:
            return None
        lows = ratios = [mine / base, mine / clips]
        n = number(run.evaluation, "metrics", "motion", "arms", arm, "n") or 0
        lost = any(text(one).startswith("motion is lost") for one in listed(verdicts.get(arm), "findings"))
    kept = n >= FEWEST and any(low is not None and low > KEPT for low in lows)
    to_base, to_clips = (ratio or 0.0 for ratio in ratios)
    note = f"{whose}{to_base:.0%} of the base's, {to_clips:.0%} of the clips'"
    return Tile("Motion", "lost" if lost else "kept" if kept else "not sure", note)


def _moves(run: RunFiles, arm: str) -> float | None:
    return number(run.evaluation, "metrics", "motion", "arms", arm, "value")


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
