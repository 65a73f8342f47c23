"""`python -m svdtrain report RUN`: one self-contained page about a run, or about several, of what their folders hold."""

from __future__ import annotations

import logging
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import svdtrain
from svdtrain.commands import report_pictures as pictures
from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import SystemFault, UsageError, shown
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.reporting import report_choice as choice
from svdtrain.reporting import report_comparison as comparison
from svdtrain.reporting import report_facts as facts
from svdtrain.reporting import report_findings as findings
from svdtrain.reporting.page import Page, place_of, render
from svdtrain.reporting.report_comparison import labels_of
from svdtrain.reporting.run_files import read_run
from svdtrain.reporting.told import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.config.reporting import ReportConfig
    from svdtrain.reporting.page import Section
    from svdtrain.reporting.run_files import RunFiles

log = logging.getLogger(__name__)
LARGEST = 15_000_000
"""Bytes of a page."""
PAGE, COMPARISON = "report.html", "comparison.html"


def run(config: ReportConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Read, draw, write. Raises UsageError, when the page is written, for a folder that is damaged."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    folders = [Path(one).expanduser() for one in config.run]
    one_run = len(folders) == 1
    if not one_run and config.evaluation:
        raise UsageError("evaluation: is of one run", f"report {folders[0]} evaluation={config.evaluation}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("run: a folder is given twice", "report RUN1 RUN2")
    out = place_of(config.out or (folders[0] / PAGE if one_run else COMPARISON))
    evaluation = Path(config.evaluation).expanduser() if config.evaluation else None
    with DecodeChild() as child:
        found = [read_run(folder, evaluation) for folder in folders]
        labelled = dict(zip(labels_of(folders), found, strict=True))
        page = page_of(found[0], config.price, child) if one_run else comparison_of(labelled, child)
    try:
        write_atomic(out, page)
    except OSError as error:
        raise SystemFault(f"out={out}: cannot be written: {error.strerror}", "out=FILE.html, elsewhere") from error
    for name, each in labelled.items():
        for mark in findings.marks(each):
            log.warning("%s", mark if one_run else f"{name}: {mark}")
    console.print(f"{out}  ({len(page) / 1e6:.1f} MB)")
    for folder, each in zip(folders, found, strict=True):
        if each.damage:
            raise UsageError(f"{folder}: damaged, {each.damage[0]}", "the page shows what could be read, and is marked")


def write_page(console: Console, run_dir: Path, *, is_ours: bool = False) -> None:
    """RUN/report.html: whatever goes wrong is a warning, none of it is worth a run. is_ours: no video is a stranger's."""
    try:
        with nullcontext() if is_ours else DecodeChild() as child:
            write_atomic(run_dir / PAGE, page_of(read_run(run_dir), child=child))
    except Exception as error:  # of any kind
        log.warning("%s: not written: %s", run_dir / PAGE, shown(str(error), 120))
        return
    console.print(f"report         {run_dir / PAGE}", highlight=False, soft_wrap=True)


def page_of(found: RunFiles, price: float | None = None, child: DecodeChild | None = None) -> bytes:
    """The page, of less than LARGEST bytes. child: decodes videos that may be anybody's."""
    cinema = pictures.Cinema(found, child)
    seen = [*pictures.samples(found, cinema), pictures.evaluated(found, cinema)]
    rest = [
        choice.section(found),
        findings.losses(found),
        pictures.changes(found),
        findings.metrics(found),
        findings.health(found),
        facts.dataset(found),
        facts.cost(found, price),
        facts.reproduce(found),
        facts.use(found),
        facts.terms(found),
    ]
    return _fitted(lambda sections: _page(found, sections), [section for section in (*seen, *rest) if section])


def comparison_of(runs: dict[str, RunFiles], child: DecodeChild | None = None) -> bytes:
    """Likewise of several runs."""
    compared = [
        pictures.side_by_side(runs, child),
        comparison.losses(runs),
        comparison.outcomes(runs),
        comparison.differences(runs),
    ]

    def page(sections: list[Section]) -> Page:
        return Page(
            title=f"{len(runs)} runs",
            kind="Comparison of training runs",
            about=", ".join(runs),
            tiles=comparison.tiles(runs),
            advice=(),
            sections=tuple(sections),
            footer=f"svdtrain {svdtrain.__version__} · python -m svdtrain report {shlex.join(runs)}",
            verdict=comparison.verdict(runs),
        )

    return _fitted(page, [section for section in compared if section])


def _fitted(page: Callable[[list[Section]], Page], sections: list[Section]) -> bytes:
    """Of less than LARGEST bytes."""
    without = len(render(page(pictures.within(sections, 0))))
    return render(page(pictures.within(sections, LARGEST - without - 10_000)))


def _page(found: RunFiles, sections: list[Section]) -> Page:
    model, started = text(found.config, "model", "name"), text(found.fields, "started")
    kind = "full fine-tuning" if text(found.config, "adapter", "kind") == "full" else "an adapter"
    about = f"{kind.capitalize()} of {model or 'a model that is not told'}"
    about += f", trained from {started[:10]} on." if started else "."
    return Page(
        title=facts.name_of(found),
        kind="Report of a training run",
        about=about,
        tiles=(*filter(None, [choice.tile(found), choice.motion_tile(found)]), *findings.tiles(found)),
        advice=(),
        sections=tuple(sections),
        footer=f"svdtrain {svdtrain.__version__} · python -m svdtrain report {shlex.quote(found.folder.resolve().name)}",
        verdict=findings.verdict(found),
    )
