"""A rank's pulse: a small file, written once a second, that says how far the rank has come; and who of them stands still."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

BEATS_VARIABLE = "SVDTRAIN_BEATS"
"""In the environment of ranks that a launcher watches: the folder of their pulses."""
LOADING = 1800.0
"""Seconds without a move, at least, that are borne before all ranks train."""
STACKS = signal.SIGUSR2
"""Has such a rank write down where it stands, whatever it is doing."""


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself."""

    rank: int
    pid: int
    host: str
    run_dir: str = ""
    """Not yet known while it is decided what the run is."""
    trains: bool = False
    """All is loaded."""
    step: int = 0
    marks: int = 0
    """Grows with everything that is done: batches, passes through the denoiser, saves."""
    breaths: int = 0
    """Grows as long as the process runs at all."""


class Pulse:
    """The rank's side. A mark costs an addition; a thread of its own writes them down."""

    def __init__(self, folder: Path, rank: int, run_dir: Path | None = None, interval: float = 1.0) -> None:
        self.folder, self.interval, self.run_dir = folder, interval, run_dir
        self.step = self.marks = 0
        self.trains = False
        self._beat = Beat(rank, os.getpid(), socket.gethostname())
        self._answer: IO[str] | None = None
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._breathe, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.run_dir:
            self.settle(self.run_dir)
        self._publish()
        self._thread.start()
        return self

    def settle(self, run_dir: Path) -> None:
        """Say where the run writes; asked by a launcher, its stacks go there."""
        self.run_dir = run_dir
        if BEATS_VARIABLE in os.environ:
            self._answer = self.stacks.open("w")
            faulthandler.register(STACKS, self._answer, all_threads=True)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.file.unlink(missing_ok=True)
        if self._answer:
            faulthandler.unregister(STACKS)
            self._answer.close()
            self.stacks.unlink()

    @property
    def file(self) -> Path:
        """Of this rank."""
        return self.folder / f"rank-{self._beat.rank}.json"

    @property
    def stacks(self) -> Path:
        """Where this rank's stacks go when it is found to stand still."""
        assert self.run_dir
        return self.run_dir / f"stacks-rank-{self._beat.rank}.txt"

    def stepped(self, step: int) -> None:
        """An optimizer step was taken; a launcher hears of it at once, for it may be the last."""
        self.step = step
        self.marks += 1
        if BEATS_VARIABLE in os.environ:
            self._publish()

    def mark(self, *_: object) -> None:
        """Something was done."""
        self.marks += 1

    def _breathe(self) -> None:
        while not self._over.wait(self.interval):
            self._publish()

    def _publish(self) -> None:
        with self._writing, suppress(OSError):  # a full disk stops no run that need not write
            self._publish_now()

    def _publish_now(self) -> None:
        now = {"step": self.step, "marks": self.marks, "trains": self.trains, "run_dir": str(self.run_dir or "")}
        self._beat = replace(self._beat, **now, breaths=self._beat.breaths + 1)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self._beat)))
        partial.replace(self.file)


def beats(folder: Path) -> list[Beat]:
    """What the ranks have said last, by rank."""
    found: list[Beat] = []
    for file in folder.glob("rank-*.json"):
        with suppress(OSError, ValueError, TypeError):
            found.append(Beat(**json.loads(file.read_text())))
    return sorted(found, key=lambda beat: beat.rank)


class Watch:
    """Whoever looks again and again, by his own clock: clocks of other machines do not matter."""

    def __init__(
        self, folder: Path, patience: float | None, ranks: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.patience, self.ranks, self.clock = folder, patience, ranks, clock
        self._marks: dict[int, int] = {}
        self._breaths: dict[int, tuple[int, float]] = {}
        self._moved = clock()
        self._all_train = False

    @property
    def bound(self) -> float | None:
        """Seconds in which some rank has to move. It is more until all of them train: a base may be large, and far away."""
        return self.patience and (self.patience if self._all_train else max(self.patience, LOADING))

    def still(self, started: Mapping[int, int] | None = None) -> list[Beat]:
        """The ranks that hold up the others when none has moved for `bound` seconds; before that, none.

        Ranks wait for each other, so that all stand still soon after one does. It is one that no longer breathes, or else
        one that has come less far than others, or else nobody can say which: then it is all of them. started: ranks that
        run -> process; one of them that has said nothing yet has come least far of all.
        """
        now, heard = self.clock(), {beat.rank: beat for beat in beats(self.folder) if beat.rank < self.ranks}
        silent_yet = {n: Beat(n, pid, socket.gethostname(), marks=-1) for n, pid in (started or {}).items()}
        found = list((silent_yet | heard).values())
        self._all_train = all(beat.trains for beat in found)
        marks = {beat.rank: beat.marks for beat in found}
        if marks != self._marks:
            self._marks, self._moved = marks, now
        for beat in found:
            if self._breaths.get(beat.rank, (-1, now))[0] != beat.breaths:
                self._breaths[beat.rank] = (beat.breaths, now)
        if self.bound is None or not found or now - self._moved < self.bound:
            return []
        least = min(beat.marks for beat in found)
        silent = [beat for beat in found if now - self._breaths[beat.rank][1] >= self.bound / 2]
        return silent if 0 < len(silent) < len(found) else [beat for beat in found if beat.marks == least]


def told(still: Sequence[Beat], seconds: float) -> str:
    """The ranks that stand still, in words."""
    names = ", ".join(f"rank {beat.rank} (process {beat.pid} on {beat.host})" for beat in still)
    verb = "has" if len(still) == 1 else "have"
    return f"{names} {verb} not moved for {seconds:g} s at step {still[0].step}"


def dump_stacks(file: Path) -> None:
    """Write where all threads of this process stand."""
    with suppress(OSError), file.open("w") as out:
        faulthandler.dump_traceback(out, all_threads=True)
