"""`python -m svdtrain inspect`: one self-contained page about a dataset, or about a folder before it is prepared."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

import svdtrain
from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.foundation.secrets import redacted
from svdtrain.preparation import sections
from svdtrain.preparation.advice import Wanted, advise
from svdtrain.preparation.duplicates import groups
from svdtrain.preparation.looks import Look, glance, look
from svdtrain.preparation.survey import Survey, spread, survey
from svdtrain.reporting.charts import counted, number
from svdtrain.reporting.page import Page, Section, Sheet, place_of, render, strip
from svdtrain.training import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.config.schema import InspectConfig
    from svdtrain.preparation.survey import Row
    from svdtrain.types import ClipBatch

KINDS = {"dataset": "Prepared dataset", "shards": "Shards", "folder": "Folder of videos, not prepared"}
ACROSS = 14
"""Widths of a square picture that a strip of frames may take."""


def run(config: InspectConfig, overrides: list[str]) -> None:
    """Look at headers, then at a sample of clips, then at the first batch; write the page."""
    console = Console()
    quiet_packages()
    out = place_of(config.out)
    with DecodeChild(config.data.decode_deadline) if config.data.decode_deadline else nullcontext() as child:
        found = survey(config.source, config.most_probed, child)
        page = _page(config, found, overrides, _Viewer(console, child))
    try:
        write_atomic(out, render(page))
    except OSError as error:
        raise SystemFault(f"out={out}: cannot be written: {error.strerror}", "choose another place") from error
    faults = sum(advice.serious for advice in page.advice)
    what = counted(len(found.rows), "file" if found.kind == "folder" else "clip")
    told = f"{counted(faults, 'fault')} and {counted(len(page.advice) - faults, 'note')}"
    console.print(f"{what}, {told}: {out}", highlight=False, soft_wrap=True)


class _Viewer:
    """Looks at clips, and keeps what could not be decoded."""

    def __init__(self, console: Console, child: DecodeChild | None) -> None:
        self.console, self.child = console, child
        self.failed: list[tuple[str, DataError]] = []

    def looks(self, rows: list[Row], way: Callable[[Row, DecodeChild | None], Look]) -> dict[str, Look]:
        """By key."""
        found: dict[str, Look] = {}
        quiet = not self.console.is_terminal
        for row in track(rows, "looking at clips", console=self.console, transient=True, disable=quiet):
            try:
                found[row.key] = way(row, self.child)
            except DataError as error:
                self.failed.append((row.key, error))
        return found


def _page(config: InspectConfig, found: Survey, overrides: list[str], viewer: _Viewer) -> Page:
    wanted = _wanted(config)
    chapters: list[Section | None]
    near: list[list[str]] = []
    refusal = None
    if found.kind == "folder":
        looks = viewer.looks(_spread(found, config.most_shown), glance)
        chapters = [sections.distributions(found, []), sections.buckets(found, wanted)]
        chapters += [sections.samples(list(looks.values()), folder=True)]
    else:
        batch, refusal = _first_batch(config)
        looks = viewer.looks(_spread(found, config.most_decoded), look)
        seen = list(looks.values())
        near = groups({one.row.key: one.signature for one in seen}, config.duplicate_bits)
        chosen = sections.choose_extremes(found.rows, seen)
        missing = {key for pair in chosen.values() for side in pair for key in side} - set(looks)
        looks |= viewer.looks([row for row in found.rows if row.key in missing], look)
        chapters = [
            sections.distributions(found, seen),
            sections.buckets(found, wanted),
            _batch_section(batch, config) if batch else None,
            sections.samples([seen[place] for place in spread(len(seen), config.most_shown)], folder=False),
            sections.extremes(looks, chosen),
            sections.duplicates(found, looks, near, len(seen)),
        ]
    found = replace(found, refused=(*found.refused, *viewer.failed))
    chapters += [sections.refusals(found), sections.rejections(found)]
    return Page(
        title=redacted(config.source),
        kind=KINDS[found.kind],
        about=_about(found, config),
        tiles=sections.tiles(found),
        advice=advise(found, wanted, near, refusal),
        sections=tuple(chapter for chapter in chapters if chapter),
        footer=f"svdtrain {svdtrain.__version__} · python -m svdtrain inspect {shlex.join(redacted(overrides))}",
    )


def _wanted(config: InspectConfig) -> Wanted:
    data, model = config.data, config.model
    motion = None if data.motion_bucket == "clip" else float(data.motion_bucket)
    stills = data.stills or model.frames == 1
    size = (model.frames, model.height, model.width)
    return Wanted(*size, data.fps, motion, data.batch_size, buckets=data.buckets, stills=stills)


def _about(found: Survey, config: InspectConfig) -> str:
    model = config.model
    made = f"Made by {found.created_by}. " if found.created_by else ""
    rate = f"at {number(config.data.fps)} fps" if config.data.fps else "at each clip's own rate"
    return (
        f"{made}Looked at for {model.name}: {model.frames} frames of {model.width}×{model.height} pixels, {rate}, "
        f"{config.data.batch_size} {'clip' if config.data.batch_size == 1 else 'clips'} a batch."
    )


def _spread(found: Survey, most: int) -> list[Row]:
    return [found.rows[place] for place in spread(len(found.rows), most)]


def _first_batch(config: InspectConfig) -> tuple[ClipBatch | None, DataError | None]:
    """The first batch that fit would train on, or why it would stop there."""
    try:
        data = build.build_stream(config.data, config.model, config.seed, steps=1, accumulate=1)
        data.setup("fit")
        return next(iter(data.train_dataloader())), None
    except DataError as error:
        return None, error


def _batch_section(batch: ClipBatch, config: InspectConfig) -> Section:
    """The tensors, turned back into pictures."""
    frames, height, width = (batch.pixels_BTCHW.shape[axis] for axis in (1, 3, 4))
    shown = spread(frames, max(2, ACROSS * height // width))
    strips = []
    for place, key in enumerate(batch.keys_B):
        pictures_THWC = build.to_frames(batch.pixels_BTCHW[place])
        facts = (
            f"{width}×{height}",
            f"{frames} frames" + (f", {len(shown)} shown" if len(shown) < frames else ""),
            f"{number(float(batch.fps_B[place]))} fps",
            f"motion bucket {number(float(batch.motion_bucket_B[place]))}",
            f"position {batch.positions_B[place]}",
        )
        strips.append(strip(pictures_THWC[shown], key, facts, height=96))
    intro = (
        f"The first batch of a run with seed={config.seed}, decoded by the training stream itself: the tensors, their "
        "size, and the frames per second and motion bucket id that the model is told."
    )
    return Section("batch", "What the trainer sees", intro, sheets=(Sheet("", tuple(strips)),), wide=True)
