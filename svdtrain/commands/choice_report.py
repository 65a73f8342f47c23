"""What a choice leaves and says: choice.json, a link to the chosen adapter, two tables, one sentence."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from svdtrain.adapters.files import CONFIG, WEIGHTS
from svdtrain.commands.evaluate_report import finite, with_ends
from svdtrain.config.strengths import even
from svdtrain.evaluation.intervals import ratio_of
from svdtrain.evaluation.verdict import FEWEST, change
from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.foundation.files import sync, write_atomic
from svdtrain.foundation.secrets import redacted
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from svdtrain.commands.evaluation_bench import Bench
    from svdtrain.config.evaluation import ChooseConfig
    from svdtrain.evaluation.choosing import Candidate, Choice, Decision
    from svdtrain.evaluation.summary import Found

JSON, BEST = "choice.json", "best"


def write(folder: Path, config: ChooseConfig, bench: Bench, decision: Decision, found: Found) -> dict[str, Any]:
    """choice.json, as it is written. Raises SystemFault where it cannot be."""
    best = decision.choice.best
    told = {
        "format": 1,
        **bench.about,
        "settings": config.model_dump(mode="json", exclude={"model", "run", "device", "privacy"}),
        "step": decision.step.step,
        "adapter": decision.step.adapter.parent.relative_to(folder).as_posix(),
        "strength": best.strength._asdict() if best else None,
        "sentence": sentence(decision),
        "steps": [_step_told(one, decision) for one in decision.ranking],
        "sweep": [_strength_told(one, decision) for one in decision.sweep],
        "sigmas": list(bench.plan.sigmas),
        "missing": found.missing,
    }
    try:
        write_atomic(folder / JSON, json.dumps(redacted(finite(told)), indent=1))
    except OSError as error:
        raise SystemFault(
            f"{folder / JSON}: cannot be written: {error.strerror}", "make room, or give rights"
        ) from error
    return told


def _step_told(one: Candidate, decision: Decision) -> dict[str, Any]:
    return {
        "step": one.arm.step,
        "held_out": asdict(one.held_out),
        "to_least": asdict(ratio_of(one.losses_NS, decision.ranking[0].losses_NS)),
        "loses_motion": decision.passed_over.get(one.arm.label, ""),
        "chosen": one.arm.adapter == decision.step.adapter,
    }


def _strength_told(one: Candidate, decision: Decision) -> dict[str, Any]:
    choice = decision.choice
    return {
        "strength": one.strength._asdict(),
        "held_out": asdict(one.held_out),
        "generic": asdict(one.generic) if one.generic else None,
        "motion": asdict(one.motion) if one.motion else None,
        "motion_to_clips": asdict(one.motion_to_clips) if one.motion_to_clips else None,
        "against": list(one.against),
        "says": _said(one, choice),
    }


def _said(one: Candidate, choice: Choice) -> str:
    if one is choice.best:
        return "chosen"
    if one in choice.ties:
        return "too few clips to tell" if len(one.losses_NS) < FEWEST else "as good"
    return "" if one.against else "worse"


def tell(console: Console, folder: Path, decision: Decision, told: dict[str, Any]) -> None:
    """Both tables, the sentence, where it all is, and how to use it."""
    if len(decision.ranking) > 1:
        rows = [
            [str(one["step"]), with_ends(one["held_out"]), one["loses_motion"] or "chosen" * one["chosen"]]
            for one in told["steps"]
        ]
        console.print(text_table(["step", "held-out loss / base's", ""], rows))
    generic = any(one.generic for one in decision.sweep)
    rows = []
    for one, said in zip(decision.sweep, told["sweep"], strict=True):
        row = [str(one.strength), *(with_ends(said[name]) for name in ("held_out", "motion", "motion_to_clips"))]
        row += [with_ends(said["generic"])] if generic else []
        rows.append([*row, "; ".join(one.against) or said["says"]])
    ratios = ["held-out loss / base's", "motion / base's", "/ clips'", *["generic loss / base's"] * generic]
    console.print(text_table(["strength", *ratios, ""], rows))
    console.print(told["sentence"])
    console.print(str(folder / JSON))
    if best := decision.choice.best:
        used = [f"adapter={folder / BEST}", f"strength={best.strength}"]
        words = shlex.join(["base_only=true"] if best.strength == even(0) else used)
        console.print(f"use it         python -m svdtrain generate {words} …")


def sentence(decision: Decision) -> str:
    """Which step, which strength, and why, in plain words."""
    best, least, step = decision.choice.best, decision.choice.least, decision.step
    if best is None or least is None:
        return (
            f"No strength of step {step.step:,} may be used: {decision.sweep[0].against[0]} at strength "
            f"{decision.sweep[0].strength}, and others are no better; try lower ones."
        )
    if best.strength == even(0):
        return (
            f"Use the base alone: no strength of step {step.step:,} that may be used is better on clips it never saw."
        )
    why = f"its loss on clips it never saw is {change(best.held_out)} the base's"
    if best.held_out.n < FEWEST:
        why += f", of {best.held_out.n} clip{'s' * (best.held_out.n != 1)}, which are too few to tell strengths apart"
    elif best is not least:
        why += f" ({least.strength} is not surely better, and {best.strength} is nearer to 1, as trained)"
    elif len(decision.sweep) > 1:
        why += ", the least of the strengths that were tried"
    if not best.motion or best.motion.n < FEWEST:
        why += "; of fewer than four inputs nothing is known of motion"
    return f"Use step {step.step:,} at strength {best.strength}: {why}{_of_step(decision)}{_not_used(decision)}."


def _of_step(decision: Decision) -> str:
    if len(decision.ranking) == 1:
        return "; the run kept no other step (trainer.keep_adapters=true keeps them)"
    if decision.passed_over.keys() >= {one.arm.label for one in decision.ranking}:
        return f"; none of {len(decision.ranking)} steps keeps motion at strength 1, and this one has the least loss"
    if lost := [f"{one.arm.step:,}" for one in decision.ranking if one.arm.label in decision.passed_over]:
        return f"; of {len(decision.ranking)} steps it has the least loss of those that keep motion, as {_and(lost)} does not"
    return f"; of {len(decision.ranking)} steps it has the least loss"


def _not_used(decision: Decision) -> str:
    kinds: dict[str, list[str]] = {}
    for one in decision.sweep:
        for said in one.against:
            kinds.setdefault(said.partition(":")[0], []).append(str(one.strength))
    return "".join(f"; not {_and(strengths)}: {kind}" for kind, strengths in kinds.items())


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def refuse_taken(place: Path) -> None:
    """Raise UsageError for what no choice has made."""
    if place.is_symlink() or not place.exists():
        return
    if not place.is_dir() or {one.name for one in place.iterdir()} - {WEIGHTS, CONFIG}:
        raise UsageError(f"{place}: is no link to an adapter, and the choice would replace it", "give it another name")


def link(place: Path, adapter: Path) -> None:
    """A relative link to the adapter's folder beside it, or (where the file system has no links) a copy. Raises SystemFault."""
    partial = place.with_name(f".partial-{token_hex(4)}-{place.name}")
    try:
        try:
            partial.symlink_to(adapter.relative_to(place.parent), target_is_directory=True)
        except OSError:
            shutil.copytree(adapter, partial, ignore=lambda _, names: {*names} - {WEIGHTS, CONFIG})
        if not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
        sync(place.parent)
    except OSError as error:
        raise SystemFault(f"{place}: cannot be made: {error.strerror}", "make room, or give rights there") from error
    finally:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
