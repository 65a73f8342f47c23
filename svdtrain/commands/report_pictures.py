"""What is seen in a run's report: videos beside the base's, each look at them by step, what changed block by block."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from svdtrain.adapters.files import read_adapter
from svdtrain.adapters.measures import by_block
from svdtrain.data.decoding import decode_frames, probe
from svdtrain.foundation.errors import DataError, ModelError, shown
from svdtrain.reporting.adapter_chart import adapter_chart
from svdtrain.reporting.charts import Chart
from svdtrain.reporting.page import Film, Screening, Section, Sheet, picture_uri, strip
from svdtrain.reporting.told import listed, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from svdtrain.data.isolation import DecodeChild
    from svdtrain.reporting.page import Strip
    from svdtrain.reporting.run_files import RunFiles

MOST_INPUTS, MOST_ARMS, FRAMES = 4, 6, 6
MOST_LOOKS, FOLLOWED = 6, 2
"""Steps, and inputs, of the timeline: a video of 25 frames at 1024x576 takes half a second to decode."""
LARGEST = 64_000_000
"""Bytes of a video that is read."""
WIDE = 480
"""Pixels of a poster."""


@dataclass(frozen=True)
class Seen:
    """A video that could be decoded."""

    data: bytes
    frames_THWC: np.ndarray
    """Some of them, from the first to the last."""

    def film(self, label: str) -> Film:
        """With its middle frame."""
        height, width = self.frames_THWC.shape[1:3]
        poster = picture_uri(self.frames_THWC[len(self.frames_THWC) // 2], WIDE)
        return Film(label, poster, width, height, f"data:video/mp4;base64,{base64.b64encode(self.data).decode()}")


class Cinema:
    """Reads videos under one folder, and keeps a sentence on each that is not there or damaged."""

    def __init__(self, run: RunFiles, child: DecodeChild | None) -> None:
        self.run, self.child = run, child

    def see(self, folder: Path, name: str) -> Seen | None:
        """None: missing. What lies outside `folder`, by a link or a name with .., is not looked at."""
        path = folder / name
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise DataError("it lies outside the folder")
            if path.stat().st_size > LARGEST:
                raise DataError(f"larger than {LARGEST // 10**6} MB")
            data = path.read_bytes()
            source = self.child
            info = source.probe(data, path.name) if source else probe(data, path.name)
            places = np.linspace(0, info.frames - 1, min(FRAMES, info.frames)).round().astype(int).tolist()
            decode = source.decode_frames if source else decode_frames
            return Seen(data, decode(data, places, path.name, info))
        except FileNotFoundError:
            self.run.missing.append(f"A sample is missing: {shown(name, 120)}.")
        except (DataError, OSError, ValueError) as error:
            self.run.missing.append(f"A sample cannot be shown: {shown(name, 120)}: {shown(str(error), 120)}.")
        return None


def samples(run: RunFiles, cinema: Cinema) -> list[Section]:
    """Before and after in step, then every look at the same inputs."""
    looks = _looks(run)
    inputs = sorted({file.name for folder in looks.values() for file in folder.glob("input-*.mp4")}, key=_number)
    if not inputs:
        run.missing.append("There are no sample videos (validation.sample_inputs=0, or none was made yet).")
        return []
    steps = _spread(sorted(looks), MOST_LOOKS)
    screenings, sheets = list[Screening](), list[Sheet]()
    for place, name in enumerate(inputs[:MOST_INPUTS], 1):
        wanted = steps if place <= FOLLOWED else _spread(steps, 2)
        found = {step: cinema.see(run.folder, f"samples/{looks[step].name}/{name}") for step in wanted}
        seen = {step: one for step, one in found.items() if one}
        films = [one.film(_label(step)) for step, one in seen.items() if step in (0, max(seen))]
        if films:
            screenings.append(Screening(f"Input {place}", tuple(films)))
        if place <= FOLLOWED:
            sheets.append(Sheet(f"Input {place}", tuple(_row(step, one) for step, one in seen.items())))
    more = f" {len(inputs) - MOST_INPUTS} more inputs are in the run's folder." if len(inputs) > MOST_INPUTS else ""
    intro = (
        "The same held-out first frames or captions, the same seeds: what the base makes of them, and what the adapter "
        f"does.{more}"
    )
    sections = [Section("before-after", "Before and after", intro, screenings=tuple(screenings))]
    if len(steps) > 2:
        told = "Each look at the same inputs while it trained, from the base on."
        sections.append(Section("timeline", "Step by step", told, sheets=tuple(sheets), wide=True))
    return sections


def side_by_side(runs: Mapping[str, RunFiles], child: DecodeChild | None) -> Section | None:
    """The newest videos of the same inputs: the first run's base, then each run's."""
    screenings = []
    for number in range(MOST_INPUTS):
        films = list[Film]()
        for label, run in runs.items():
            steps = [step for step, look in _looks(run).items() if (look / f"input-{number}.mp4").is_file()]
            for step in _spread(steps, 2)[bool(films) :]:
                if seen := Cinema(run, child).see(run.folder, f"samples/step-{step:06d}/input-{number}.mp4"):
                    films.append(seen.film(f"{label}, {_label(step)}" if step else "base"))
        if films:
            screenings.append(Screening(f"Input {number + 1}", tuple(films)))
    if not screenings:
        return None
    intro = "The newest look of each run at its own held-out inputs: where runs had the same clips, the same inputs."
    return Section("side-by-side", "Beside each other", intro, screenings=tuple(screenings))


def evaluated(run: RunFiles, cinema: Cinema) -> Section | None:
    """An evaluation's videos: the clip, the base, each adapter at each strength."""
    folder, arms = run.evaluated_in, list(table(run.evaluation, "videos").items())[:MOST_ARMS]
    screenings = []
    for one in listed(run.evaluation, "samples")[:MOST_INPUTS] if folder else ():
        films = []
        for arm, place in arms:
            name = text(one, "name")
            file = name.partition("-")[0] if arm == "held-out clip" else name
            if folder and file and (seen := cinema.see(folder, f"{text(place)}/{file}.mp4")):
                films.append(seen.film(arm))
        if films:
            screenings.append(Screening(f"{text(one, 'clip')}, seed {text(one, 'seed')}", tuple(films)))
    if not screenings:
        return None
    intro = "The held-out clip, what the base makes of its beginning, and what the adapter does at each strength (@)."
    return Section("evaluated", "Beside the clip itself", intro, screenings=tuple(screenings))


def changes(run: RunFiles) -> Section | None:
    """How much each block changes, its look and its motion."""
    file = run.folder / "adapter" / "adapter_model.safetensors"
    if not file.is_file():
        if text(run.config, "adapter", "kind") != "full":
            run.missing.append("There is no adapter yet.")
        return None
    try:
        rows = by_block(read_adapter(file).layers)
    except (ModelError, OSError, ValueError, KeyError, ArithmeticError) as error:
        run.damage.append(f"the adapter cannot be read: {shown(str(error), 120)}")
        return None
    sizes = {half: sum(row.norm**2 for row in rows if row.half == half) ** 0.5 for half in ("spatial", "temporal")}
    intro = (
        "How much the adapter adds to each block's weights: the spatial half is the look, the temporal one the motion. In "
        f"all: spatial {sizes['spatial']:.3g}, temporal {sizes['temporal']:.3g}."
    )
    drawing = Chart("By block", "", svg=Markup(adapter_chart("", rows)))
    return Section("changes", "Where it changed the model", intro, charts=(drawing,), wide=True)


def within(sections: list[Section], most: int) -> list[Section]:
    """Of all screenings the largest lose their videos, and keep their pictures, until the others' go into `most` bytes."""
    rows = [row for section in sections for row in section.screenings]
    sizes = {id(row): sum(len(film.video) for film in row.films) for row in rows}
    total, dropped = sum(sizes.values()), set[int]()
    for row in sorted(rows, key=lambda row: -sizes[id(row)]):
        if total > most:
            total -= sizes[id(row)]
            dropped.add(id(row))

    def fitted(row: Screening) -> Screening:
        if id(row) not in dropped:
            return row
        size = f"{sizes[id(row)] * 3 / 4e6:.1f} MB"
        note = f"Left out: these videos ({size}) would make the page larger than 15 MB. They are in the run's folder."
        return replace(row, note=note, films=tuple(replace(film, video="") for film in row.films))

    return [replace(section, screenings=tuple(map(fitted, section.screenings))) for section in sections]


def _looks(run: RunFiles) -> dict[int, Path]:
    """Folders by step, steps rising."""
    folders = sorted(run.folder.glob("samples/step-*"))
    return {int(found[1]): one for one in folders if (found := re.fullmatch(r"step-(\d{6,9})", one.name))}


def _row(step: int, seen: Seen) -> Strip:
    return strip(seen.frames_THWC, _label(step), (), height=96)


def _label(step: int) -> str:
    return f"step {step:,}" if step else "base"


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"\d{1,9}", name)
    return (int(digits[0]) if digits else 0), name


def _spread(steps: list[int], most: int) -> list[int]:
    """From the first to the last."""
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    return [steps[place] for place in places]
