"""What one input comes to: taken as good, refused in a line that names it, or a finding."""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import one_line
from tests.fuzz import adapters, captions, jsons, tars, videos, words
from tests.fuzz.place import SECONDS, Answer, Place, own_folder

KINDS = {
    "tar": tars.attempt,
    "mp4": videos.attempt,
    "json": jsons.attempt,
    "caption": captions.attempt,
    "override": words.attempt,
    "adapter header": adapters.attempt,
}
LONGEST = 200
SHORT = 40
"""Characters of a name that are looked for: a message may cut a long one."""
MOST_GROWTH = 500 << 20
"""Bytes that an input may take of this process and its decoder, above what they held when it came."""


@dataclass(frozen=True)
class Verdict:
    """On one input."""

    kind: str
    number: int
    code: int
    """0: taken as good; 2 to 6: refused; 1: a finding."""
    message: str
    seconds: float
    memory: int
    """Bytes that this process and its decoder held at most meanwhile."""
    finding: str = ""


def numbered(seed: int, kind: str, number: int) -> Random:
    """The draws of an input."""
    return Random(f"{seed}/{kind}/{number}")


def judged(kind: str, number: int, draw: Random, world: Path, root: Path, child: DecodeChild) -> Verdict:
    """Make an input, hand it over, and judge the answer. `child` decodes, and may be used for many."""
    _forget_peaks(child)
    held = sum(_peaks(child))
    with own_folder(root) as folder:
        place, start = Place(world, folder, child), time.perf_counter()
        finding, (code, message) = "", (1, "")
        try:
            code, message = KINDS[kind](draw, place)
        except Exception as error:
            finding = f"{type(error).__name__} at {_where(error)}: {error}"[:4000]
        seconds, memory = time.perf_counter() - start, sum(_peaks(child))
        finding = finding or fault_of((code, message), place, seconds, memory - held)
        shown = _without_place(one_line(message), place)
    return Verdict(kind, number, 1 if finding else code, shown, seconds, memory, finding)


def fault_of(answer: Answer, place: Place, seconds: float, growth: int) -> str:
    """What is wrong with an answer; empty: nothing."""
    code, message = answer
    if seconds > SECONDS:
        return f"{seconds:.1f} s"
    if growth > MOST_GROWTH:
        return f"{growth:,} bytes of memory"
    if code == 0:
        return ""
    line = one_line(message)
    names = (str(place.folder), *(one_line(name)[:SHORT] for name in place.names if name.strip()))
    if not any(name in line for name in names):
        return f"it names neither file nor key: {line}"
    if len(shown := _without_place(line, place)) > LONGEST:
        return f"{len(shown)} characters: {shown}"
    return "" if line.isprintable() else f"not printable: {line!r}"


def _where(error: Exception) -> str:
    """The last line of svdtrain that it came by."""
    frames = traceback.extract_tb(error.__traceback__)
    last = ([frame for frame in frames if "/svdtrain/" in frame.filename] or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _without_place(line: str, place: Place) -> str:
    return line.replace(f"{place.folder.resolve()}/", "").replace(f"{place.folder}/", "").replace(str(place.folder), "")


def _forget_peaks(child: DecodeChild) -> None:
    for process in _processes(child):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def _peaks(child: DecodeChild) -> list[int]:
    """Most bytes that each process has held since."""
    found: list[int] = []
    for process in _processes(child):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found


def _processes(child: DecodeChild) -> list[int]:
    running = child._running
    return [os.getpid(), *([running._process.pid] if running and running._process.poll() is None else [])]
