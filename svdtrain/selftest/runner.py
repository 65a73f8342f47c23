"""The table of faults, row by row: what each came to against what is promised."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import svdtrain
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.files import write_atomic
from svdtrain.selftest.faults.place import PREPARE, SHORT, Kit, Place
from svdtrain.selftest.faults.row import Answer, Broken, Fault, Run
from svdtrain.selftest.faults.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from svdtrain.config.selftest import SelftestConfig

LONGEST = 200
"""Characters of an error line."""
SPOKEN = ("error: ", "hint: ", "warning: ")
MOST_JOBS = 4
MOST_SHOWN = 2000
"""Characters of what a failed row's command said, in faults.json."""


@dataclass
class Result:
    """What became of a row."""

    number: int
    name: str
    group: str
    state: str = "ok"
    """ok, FAILED or skipped."""
    why: str = ""
    seconds: float = 0.0
    answers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of its runs, those that are shown: command, exit code, error line."""
    said: str = ""
    """By the last command of a row that failed."""


def run_table(config: SelftestConfig, console: Console) -> int:
    """Print a line for each row, and how many were answered as promised; 0, or 6 when any was not. UsageError."""
    known = {fault.number: fault for fault in TABLE}
    if strange := [number for number in config.rows if number not in known]:
        raise UsageError(f"rows: there is no row {strange[0]}", f"rows go from {min(known)} to {max(known)}")
    out = Path(config.out).expanduser() if config.out else None
    if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"out={config.out}: taken, it holds something", "name a new folder")
    chosen = [known[number] for number in dict.fromkeys(config.rows)] or list(TABLE)
    jobs = min(config.jobs or min(os.cpu_count() or 1, MOST_JOBS), len(chosen))
    results: list[Result] = []
    with short_folder() as root, kits(root) as kit_of_thread, ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda fault: tried(fault, kit_of_thread()), chosen):
            results.append(result)
            told = f": {result.why}" if result.why else ""
            console.print(f"{result.number:>3}  {result.name:<58} {result.state:<7} {result.seconds:5.1f} s{told}")
    failed = sum(result.state == "FAILED" for result in results)
    skipped = sum(result.state == "skipped" for result in results)
    more = f"; {skipped} could not be tried here" if skipped else ""
    console.print(f"{len(results) - failed - skipped} of {len(results)} faults answered as promised{more}")
    if out:
        rows = {"svdtrain": svdtrain.__version__, "rows": [asdict(result) for result in results]}
        write_atomic(out / "faults.json", json.dumps(rows, indent=1) + "\n")
    return 6 if failed else 0


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder of few characters: a message that names a file in it has the rest for itself."""
    parent = Path("/tmp") if os.access("/tmp", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="svdtrain-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for one in folder.rglob("*"):
            if one.is_dir() and not one.is_symlink():
                one.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def kits(root: Path) -> Iterator[Any]:
    """A function that gives each thread a kit of its own."""
    mine, made = threading.local(), list[Kit]()

    def kit_of_thread() -> Kit:
        if not hasattr(mine, "kit"):
            mine.kit = Kit(root / f"{threading.get_ident():x}"[-6:])
            made.append(mine.kit)
        return mine.kit

    try:
        yield kit_of_thread
    finally:
        for kit in made:
            kit.close()


def tried(fault: Fault, kit: Kit) -> Result:
    """Run the row's command lines, one after the other; the first promise that is broken ends it."""
    result, start = Result(fault.number, fault.name, fault.group), time.monotonic()
    if fault.lacks and (lacking := fault.lacks()):
        result.state, result.why = "skipped", lacking
        return result
    place = Place(kit, str(fault.number))
    runs, answer = fault.runs(place), None
    try:
        while True:
            run = runs.send(answer)
            before = place.marks()
            answer = place.answer(run)
            if run.shown:
                result.answers.append(_told(run, answer, place))
            if why := broken(run, answer, before, place.marks()):
                raise Broken(f"`{_short(run)}` {why}")
    except StopIteration:
        pass
    except Exception as error:  # a row that goes wrong in whatever way leaves the others their turn
        result.state = "FAILED"
        result.why = str(error) if isinstance(error, Broken) else f"the row: {type(error).__name__}: {error}"
        result.said = (answer.stdout + answer.stderr)[-MOST_SHOWN:] if answer else ""
    result.seconds = round(time.monotonic() - start, 2)
    return result


def _short(run: Run) -> str:
    """The command without the words of every short fit."""
    return " ".join(word for word in run.words if word not in (*SHORT, *PREPARE))


def broken(run: Run, answer: Answer, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The promise that an answer does not keep, in words; empty: all are kept."""
    said = answer.stdout + answer.stderr
    if answer.code is None:
        return f"hangs: no end in {run.seconds:g} s"
    if answer.code != run.code:
        what = answer.lines or answer.stderr.splitlines() or ["it said nothing"]
        return f"left with {answer.code}, not {run.code}: {what[-1]}"
    if "Traceback" in said:
        return "showed a traceback"
    if len(answer.lines) != int(run.fails):
        return f"printed {len(answer.lines)} error lines, not {int(run.fails)}: {' / '.join(answer.lines)}"
    if run.fails and (noise := [line for line in answer.stderr.splitlines() if not line.startswith(SPOKEN)]):
        return f"printed besides: {noise[0]}"
    line = answer.lines[0] if run.fails else said
    if run.fails and len(line) > LONGEST:
        return f"printed a line of {len(line)} characters: {line}"
    if missing := [word for word in run.says if word not in line]:
        return f"did not say '{missing[0]}': {line.strip()[-300:]}"
    touched = [name for name in sorted({**before, **after}) if before.get(name) != after.get(name)]
    odd = [name for name in touched if not any(fnmatchcase(name, pattern) for pattern in run.changes)]
    return f"changed {odd[0]}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "") if odd else ""


def _told(run: Run, answer: Answer, place: Place) -> dict[str, Any]:
    """For the documentation: what was typed, what it left with, and what it said, without our temporary folder."""
    said = [f"error: {line}" for line in answer.lines] or [
        line for line in (answer.stdout + answer.stderr).splitlines() if any(word in line for word in run.says)
    ]
    line = (said or [""])[-1].replace(f"{place.folder}/", "").replace(str(place.kit.root), "…")
    return {"command": _short(run), "code": answer.code, "line": line}
