"""Rows 28 to 33, and 40 to 42: disks, rights, memory, signals, clocks, ports and locks."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.selftest.children import Conditions, is_alive
from svdtrain.selftest.faults.place import ADAPTER, Place, fit, saved, step_told
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs
from svdtrain.training.checkpoint import newest_whole, step_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.selftest.children import Child

LONG = ("trainer.max_steps=100000", "trainer.keep_checkpoints=2")
MINE = ("run", "run/*")
MOST_KILLS = 5
"""Of one save, spread over its calls; tests/training/test_killed_saves.py tries each."""
NO_ROOM = 50_000
"""Bytes that a file may have: room for an adapter of the kit, not for a checkpoint."""


def _full_disk(place: Place) -> Runs:
    place.copy("prepared")
    under = Conditions(limits={"RLIMIT_FSIZE": NO_ROOM})
    said = ("run/checkpoints/step-00000", "cannot be written", "File too large")
    yield Run(fit("run_dir=run"), 5, said, MINE, under)
    shutil.rmtree(place.folder / "run")
    place.copy("run")
    words = fit("resume=run", "trainer.max_steps=3")
    others = ("run", "run/run.json", "run/adapter", "run/adapter/*", "run/metrics.jsonl", "run/events.jsonl")
    yield Run(words, 5, said, others, under)
    yield Run(words, 0, ("step 3/3",), MINE)


def _no_rights(place: Place) -> Runs:
    place.copy("prepared")
    under = Conditions(plain_rights=True)
    (place.folder / "locked").mkdir(mode=0o555)
    yield Run(fit("run_dir=locked/run"), 5, ("locked/run",), under=under)

    def lock(child: Child) -> None:
        checkpoints = place.folder / "run" / "checkpoints"
        if child.until(lambda: saved(place, 2)):
            checkpoints.chmod(0o555)

    yield Run(fit("run_dir=run", *LONG), 5, ("run/checkpoints/step-", "cannot be written"), MINE, under, lock)
    if not saved(place, 2):
        raise Broken("the checkpoints that were there are gone")


def _elsewhere(place: Place) -> Runs:
    place.copy("prepared")
    wanted = (place.kit.run / ADAPTER).read_bytes()
    (place.folder / "file").touch()
    for number, folder in enumerate((OTHER_DISK, Path("/nonexistent"), place.folder / "file")):
        under = Conditions({"TMPDIR": str(folder)})
        name = f"run{number}"
        yield Run(fit(f"run_dir={name}"), 0, ("step 2/2",), (name, f"{name}/*"), under)
        if (place.folder / name / ADAPTER).read_bytes() != wanted:
            raise Broken(f"TMPDIR={folder}: another adapter")


OTHER_DISK = Path("/dev/shm")


def _one_disk() -> str:
    if not OTHER_DISK.is_dir():
        return f"no {OTHER_DISK}"
    return "" if OTHER_DISK.stat().st_dev != Path("/tmp").stat().st_dev else f"{OTHER_DISK} is no other file system"


KILL_AT = """
import atexit, os, signal, sys
passed = 0
def counted(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global passed
        passed += name == "fsync" or any("run" in os.path.abspath(str(arg)).split(os.sep) for arg in args)
        if {point} and passed == {point}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(os, name, call)
for name in ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir"):
    counted(name)
if not {point}:
    atexit.register(lambda: sys.stderr.write(f"warning: {{passed}} calls\\n"))
"""
"""Ends the process before a given one of the calls by which a run writes: no other cause hits each of them."""


def _killed_save(place: Place) -> Runs:
    place.copy("prepared")
    shutil.copytree(place.copy("run"), place.folder / "before")
    words = fit("resume=run", "trainer.max_steps=3", "trainer.keep_checkpoints=1")
    counting = Conditions(stand_in=KILL_AT.format(point=0))
    answer = yield Run(words, 0, ("step 3/3", " calls"), MINE, counting, shown=False)
    assert answer
    calls = int(answer.stderr.rpartition("warning: ")[2].split()[0])
    wanted = (place.folder / "run" / ADAPTER).read_bytes()
    for point in range(1, calls + 1, max(1, calls // MOST_KILLS)):
        shutil.rmtree(place.folder / "run")
        shutil.copytree(place.folder / "before", place.folder / "run")
        under = Conditions(stand_in=KILL_AT.format(point=point))
        yield Run(words, -signal.SIGKILL, (), MINE, under, stopped=True, shown=False)
        newest, _ = newest_whole(place.folder / "run")
        if newest is None or step_of(newest) not in (2, 3):
            raise Broken(f"killed at call {point} of {calls}: {newest} is the newest whole checkpoint")
        if newest and step_of(newest) == 2:
            yield Run(words, 0, ("step 3/3",), MINE, shown=point == 1)
        if (place.folder / "run" / ADAPTER).read_bytes() != wanted:
            raise Broken(f"killed at call {point} of {calls}: the run that goes on ends in another adapter")


def no_prlimit() -> str:
    """Why memory cannot be taken from a process that runs."""
    there = hasattr(resource, "prlimit") and hasattr(ctypes.CDLL(None), "mallopt") and Path("/proc/self/statm").exists()
    return "" if there else "no prlimit or mallopt on this system"


ASK_AGAIN = """
import ctypes
M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
"""
"""Memory is given back and asked for at every step: a process that keeps what it has would not notice."""


def _no_memory(place: Place) -> Runs:
    place.copy("prepared")

    def starve(child: Child) -> None:
        if child.until(lambda: saved(place, 2)):
            most = 4096 * int(Path(f"/proc/{child.pid}/statm").read_text().split()[0])
            resource.prlimit(child.pid, resource.RLIMIT_AS, (most, most))

    words = fit("model.frames=8", "model.height=64", "model.width=64", "data.cache=disk", "data.cache_dir=latents")
    yield Run(["cache", *words[1:]], 0, changes=("latents", "latents/*"), shown=False)
    words = fit(*words[1:], "run_dir=run", *LONG)
    yield Run(words, 5, ("out of memory",), MINE, Conditions(stand_in=ASK_AGAIN), starve, seconds=120)
    if not newest_whole(place.folder / "run")[0]:
        raise Broken("no whole checkpoint is left")


def _signals(place: Place) -> Runs:
    place.copy("prepared")
    words = fit("run_dir=run", *LONG)

    def after(steps: int, number: signal.Signals) -> Callable[[Child], None]:
        def send(child: Child) -> None:
            if child.until(lambda: saved(place, steps) if steps else (place.folder / "run/run.json").exists()):
                child.send(number)

        return send

    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)):
        yield Run(words, code, ("stopped at step ",), MINE, meanwhile=after(2, number), stopped=True)
        newest, _ = newest_whole(place.folder / "run")
        if not newest or step_of(newest) != step_told(place):
            raise Broken(f"{number.name}: run.json says step {step_told(place)}, {newest} is the newest checkpoint")
        shutil.rmtree(place.folder / "run")
    yield Run(words, 143, (), MINE, meanwhile=after(0, signal.SIGTERM), stopped=True)
    shutil.rmtree(place.folder / "run", ignore_errors=True)
    shutil.rmtree(place.folder / "run", ignore_errors=True)

    def send_twice(child: Child) -> None:
        beat = place.folder / "run" / ".ranks" / "rank-0.json"
        if child.until(lambda: beat.exists() and json.loads(beat.read_text())["marks"] > 3):
            child.send(signal.SIGTERM)
            time.sleep(1.5)
            child.send(signal.SIGTERM)

    slow = (*words, "trainer.accumulate=1000")
    yield Run(slow, 143, ("once more ends at once",), MINE, meanwhile=send_twice, stopped=True, seconds=5)


JUMPS = """
import random, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.choice((-86400, 0, 3600, 86400))
"""


def _clocks(place: Place) -> Runs:
    place.copy("prepared")
    place.copy("run")
    wanted = fit("run_dir=straight", "trainer.max_steps=3")
    yield Run(wanted, 0, ("step 3/3",), ("straight", "straight/*"), shown=False)
    tomorrow = time.time() + 86400
    for path in (place.folder / "run" / "checkpoints" / "step-000001").iterdir():
        os.utime(path, (tomorrow, tomorrow))
    resumed = fit("resume=run", "trainer.max_steps=3")
    yield Run(resumed, 0, ("step 3/3",), MINE, Conditions(stand_in=JUMPS))
    if (place.folder / "run" / ADAPTER).read_bytes() != (place.folder / "straight" / ADAPTER).read_bytes():
        raise Broken("another adapter than with clocks that do not jump")


def _meeting(place: Place) -> Runs:
    place.copy("prepared")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        two = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = fit("trainer.devices=2", "run_dir=run")
        yield Run(words, 5, ("the ranks cannot meet",), under=Conditions(two))
        nowhere = Conditions(two | {"MASTER_ADDR": "nowhere.invalid"})
        yield Run(words, 5, ("the ranks cannot meet",), under=nowhere)
        yield Run(fit(), 2, ("trainer.devices=1: 2 processes were started (WORLD_SIZE)",), under=Conditions(two))


def _two_runs(place: Place) -> Runs:
    place.copy("prepared")
    with place.running(Run(fit("run_dir=run", *LONG), 0)) as first:
        first.until(lambda: saved(place, 1))
        yield Run(fit("run_dir=run", *LONG), 2, (f"run: process {first.pid} on ", "trains there"), MINE)
        os.kill(first.pid, signal.SIGKILL)
        while is_alive(first.pid):
            time.sleep(0.01)
    newest, _ = newest_whole(place.folder / "run")
    assert newest
    steps = step_of(newest) + 1
    words = fit("run_dir=run", f"trainer.max_steps={steps}")
    yield Run(words, 0, (f"step {steps}/{steps}",), MINE)


ROWS = (
    Fault(28, "a full disk (RLIMIT_FSIZE)", _full_disk),
    Fault(29, "a folder that may not be written to", _no_rights),
    Fault(30, "TMPDIR on another disk, missing, no folder", _elsewhere, _one_disk),
    Fault(31, "killed at a call of a save (by a stand-in)", _killed_save),
    Fault(32, "no more memory in the middle of training", _no_memory, no_prlimit),
    Fault(33, "SIGTERM, SIGINT, SIGUSR1; early, and twice", _signals),
    Fault(40, "a clock that jumps (by a stand-in), odd file times", _clocks),
    Fault(41, "ranks that cannot meet, or are too many", _meeting),
    Fault(42, "two runs in one folder; a lock left behind", _two_runs),
)
