"""`python -m svdtrain evaluate`: the base against adapters, on fixed clips, noise and seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.commands.evaluate_report import JSON, tell, write
from svdtrain.commands.evaluated import arms_of, evaluated
from svdtrain.commands.evaluation_bench import opened, refuse_missing
from svdtrain.commands.report import write_page
from svdtrain.evaluation.results import Results
from svdtrain.evaluation.summary import summarised
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.quiet import quiet_packages

if TYPE_CHECKING:
    from svdtrain.commands.evaluation_bench import Bench
    from svdtrain.config.evaluation import EvaluateConfig
    from svdtrain.evaluation.summary import Found


def run(config: EvaluateConfig, overrides: list[str]) -> None:
    """Find what is missing of this process's part; where nothing is missing any more, put all together."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    found = [evaluated(place) for place in config.adapters or [config.adapter or ""]]
    number, parts = _part(config)
    out = Path(config.out) if config.out else (found[0].run_dir or found[0].file.parent) / "evaluation"
    with opened(console, config, overrides, found, Results(out), slice(number, None, parts)) as bench:
        results = bench.found(arms_of(config, found))
    if _finished(console, bench, results):
        if found[0].run_dir and not config.out:
            write_page(console, found[0].run_dir)
        refuse_missing(results, JSON)
    for one in found:
        if one.damage:
            raise UsageError(f"{one.place}: damaged, {one.damage}", "its adapter was evaluated all the same")


def _part(config: EvaluateConfig) -> tuple[int, int]:
    """(number, of how many) this process is."""
    told = config.shard or f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
    number, parts = (int(word) if word.isdigit() else -1 for word in told.split("/"))
    if not 0 <= number < parts:
        raise UsageError(f"RANK of WORLD_SIZE: {told} is no part", "shard=0/1")
    return number, parts


def _finished(console: Console, bench: Bench, found: Found) -> bool:
    """All is put together, and told."""
    if found.waits:
        waiting = sum(reason == "not there yet" for reason in found.missing.values())
        console.print(f"{waiting} results are missing yet; the process that finds the last, or this command, tells all")
        return False
    told = summarised(found, bench.absent, bench.about)
    write(bench.results.folder, found.plan, told, found)
    tell(console, bench.results.folder, told)
    return True
