"""`python -m svdtrain choose RUN`: which of a run's steps to use, and at which strength."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.adapters.files import read_adapter
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.targets import half_of
from svdtrain.commands.choice_report import BEST, JSON, link, refuse_taken, tell, write
from svdtrain.commands.evaluated import base_of, earlier_of, evaluated, step_of
from svdtrain.commands.evaluation_bench import opened, refuse_missing
from svdtrain.commands.report import write_page
from svdtrain.config.strengths import even
from svdtrain.evaluation.choosing import Decision, around, candidates, chosen, loses_motion, ranked
from svdtrain.evaluation.results import Results
from svdtrain.evaluation.work import Arm
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.files import sha256_of
from svdtrain.foundation.quiet import quiet_packages

if TYPE_CHECKING:
    from svdtrain.commands.evaluated import Evaluated
    from svdtrain.commands.evaluation_bench import Bench
    from svdtrain.config.evaluation import ChooseConfig
    from svdtrain.config.strengths import Strength
    from svdtrain.evaluation.choosing import Candidate
    from svdtrain.evaluation.summary import Found

log = logging.getLogger(__name__)
LAST = "adapter"
"""The label of the run's own adapter, as an evaluation of it has it."""


def run(config: ChooseConfig, overrides: list[str]) -> None:
    """Find what is missing, decide, write, link; then the run's page anew."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    folder = Path(config.run).expanduser()
    source = _run_of(folder)
    refuse_taken(folder / BEST)
    results = Results(folder / "choice", [folder / "evaluation"])
    with opened(console, config.evaluation(), overrides, [source], results) as bench:
        steps = _steps(source)
        halves = {half_of(module) for arm in steps for module in _modules(bench, arm)}
        if config.halves and len(halves) < 2:
            log.warning("halves has no effect: the adapter has a %s half alone", *halves)
        decision, found = _decided(config, bench, base_of(source), steps, both=len(halves) == 2)
    told = write(folder, config, bench, decision, found)
    link(folder / BEST, decision.step.adapter.parent)
    tell(console, folder, decision, told)
    write_page(console, folder)
    refuse_missing(found, JSON)


def _run_of(folder: Path) -> Evaluated:
    """Raises UsageError for what is no whole run, ModelError where it holds no adapter."""
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"run={folder}: it is no run folder", "give a folder under runs/; a file: evaluate adapter=FILE"
        )
    if (folder / "denoiser").is_dir():
        seen = f"run={folder}: its whole denoiser was trained, which has no strength"
        raise UsageError(seen, f"python -m svdtrain adapter extract {folder} base=FOLDER out=NEW.safetensors")
    source = evaluated(str(folder))
    if source.damage:
        raise UsageError(f"run={folder}: damaged, {source.damage}", "evaluate adapter=RUN shows what there is")
    return source


def _steps(source: Evaluated) -> list[Arm]:
    """As trained: the last, then earlier ones that the run kept. Of a run that goes on, what it kept stays as it is."""
    mark = sha256_of(source.file)
    last = next((file for file in source.earlier if sha256_of(file) == mark), source.file)
    return [Arm(LAST, last, mark, even(1), step_of(source.info)), *earlier_of(source, mark, LAST)]


def _modules(bench: Bench, arm: Arm) -> list[str]:
    """Of its file. Raises ModelError for one that is damaged."""
    return list(read_adapter(arm.adapter, layout_of(bench.family.denoiser)).layers)


def _decided(config: ChooseConfig, bench: Bench, base: Arm, steps: list[Arm], *, both: bool) -> tuple[Decision, Found]:
    """both: the adapter has two halves."""
    found = bench.found([base, *steps], videos=False)
    if not found.loss_table("held_out")[0]:
        refuse_missing(found, JSON)
    ranking = ranked(found, steps)
    passed_over: dict[str, str] = {}
    for one in ranking if len(ranking) > 1 else ():
        arm = replace(one.arm, of="")
        if not (lost := loses_motion(bench.found([base, arm]), arm)):
            break
        passed_over[arm.label] = lost
    keeps = [one.arm for one in ranking if one.arm.label not in passed_over]
    step = replace((keeps or [ranking[0].arm])[0], of="")

    strengths = list(config.strengths)
    sweep, found = _swept(bench, base, step, strengths)
    choice = chosen(sweep)
    if config.halves and both and choice.best:
        sweep, found = _swept(bench, base, step, [*strengths, *around(choice.best.strength, strengths)])
        choice = chosen(sweep)
    return Decision(ranking, passed_over, step, sweep, choice), found


def _swept(bench: Bench, base: Arm, step: Arm, strengths: list[Strength]) -> tuple[list[Candidate], Found]:
    """The step at each strength; at 0 it is the base itself."""
    arms = [
        base
        if strength == even(0)
        else step
        if strength == even(1)
        else replace(step, label=f"{step.label}@{strength}", strength=strength)
        for strength in strengths
    ]
    found = bench.found([base, *(arm for arm in arms if arm is not base)])
    return candidates(found, arms), found
