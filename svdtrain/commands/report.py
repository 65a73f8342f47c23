"""`python -m svdtrain report RUN`: one self-contained page about a run, of what its folder holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import svdtrain
from svdtrain.commands import report_pictures as pictures
from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.reporting import report_choice as choice
from svdtrain.reporting import report_facts as facts
from svdtrain.reporting import report_findings as findings
from svdtrain.reporting.page import Page, render
from svdtrain.reporting.run_files import read_run
from svdtrain.reporting.told import text

if TYPE_CHECKING:
    from svdtrain.config.reporting import ReportConfig
    from svdtrain.reporting.page import Section
    from svdtrain.reporting.run_files import RunFiles

log = logging.getLogger(__name__)
LARGEST = 15_000_000
"""Bytes of a page."""
PAGE = "report.html"


def run(config: ReportConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Read, draw, write. Raises UsageError, when the page is written, for a folder that is damaged."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    folder = Path(config.run).expanduser()
    out = Path(config.out).expanduser() if config.out else folder / PAGE
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UsageError(f"out={out}: the page is an html file", "out=report.html")
    evaluation = Path(config.evaluation).expanduser() if config.evaluation else None
    with DecodeChild() as child:
        found = read_run(folder, evaluation)
        page = page_of(found, config.price, child)
    try:
        write_atomic(out, page)
    except OSError as error:
        raise SystemFault(f"out={out}: cannot be written: {error.strerror}", "out=FILE.html, elsewhere") from error
    for mark in findings.marks(found):
        log.warning("%s", mark)
    console.print(f"{out}  ({len(page) / 1e6:.1f} MB)")
    if found.damage:
        raise UsageError(f"{folder}: damaged, {found.damage[0]}", "the page shows what could be read, and is marked")


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
    sections = [section for section in (*seen, *rest) if section]
    without = len(render(_page(found, pictures.within(sections, 0))))
    return render(_page(found, pictures.within(sections, LARGEST - without - 10_000)))


def _page(found: RunFiles, sections: list[Section]) -> Page:
    model, started = text(found.config, "model", "name"), text(found.fields, "started")
    kind = "full fine-tuning" if text(found.config, "adapter", "kind") == "full" else "an adapter"
    about = f"{kind.capitalize()} of {model or 'a model that is not told'}"
    about += f", trained from {started[:10]} on." if started else "."
    return Page(
        title=facts.name_of(found),
        kind="Report of a training run",
        about=about,
        tiles=(*filter(None, [choice.tile(found)]), *findings.tiles(found)),
        advice=(),
        sections=tuple(sections),
        footer=f"svdtrain {svdtrain.__version__} · python -m svdtrain report {found.folder.resolve().name}",
        verdict=findings.verdict(found),
    )
