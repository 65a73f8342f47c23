"""One parent, several ranks: it starts them, passes on signals, names the one that dies or stands still, and starts again.

It holds no model and joins no collective, so that nothing a rank does can make it hang. The ranks meet through a file: no
port to be taken.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svdtrain.foundation.errors import LostRank
from svdtrain.launching.notice import ONE_NOTICE, STOPS, held_back
from svdtrain.launching.pulse import BEATS_VARIABLE, STACKS, Watch, beats, told

GRACE = 10.0
"""Seconds that the other ranks have to leave by themselves when one has failed."""
AT_ONCE = 2.0
"""Seconds that all have to leave after a second signal."""
POLL = 0.05
MOST_LINES = 1000
AGAIN = "the same command with run_dir=FOLDER goes on from the last save; supervise=N does so by itself"


@dataclass
class Rank:
    """A child process and what it has said on stderr: its error and hint apart, for one of them is told, not each."""

    number: int
    process: subprocess.Popen[str]
    verdict: list[str] = field(default_factory=list)
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    cut_short: bool = False
    """It had not left by itself when its time was over: how it ended says nothing."""

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def heard(self, seconds: float) -> None:
        """All that it has said is read, once it has ended; a worker that outlives it may hold the pipe."""
        self._reader.join(seconds)

    def _read(self) -> None:
        """Until it closes. What the first rank says besides goes on at once."""
        assert self.process.stderr
        for line in self.process.stderr:
            if line.startswith(("error: ", "hint: ")):
                self.verdict.append(line)
            elif self.number == 0:
                sys.stderr.write(line)
            else:
                self.trace.append(line)

    @property
    def lost_another(self) -> bool:
        """It ended because a rank did that is not this one, and says so."""
        return bool(self.verdict) and self.process.returncode == LostRank.exit_code

    @property
    def death(self) -> str:
        """How it ended, for one that could not say it itself."""
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        return f"rank {self.number} (process {self.process.pid}) {how}"


@dataclass(frozen=True)
class Outcome:
    """How a start of all ranks ended."""

    code: int
    lines: tuple[str, ...]
    step: int
    run_dir: str

    @property
    def may_start_again(self) -> bool:
        """A lost rank or an error that nobody foresaw: not what the user has to mend, and not what he wanted."""
        return self.code in (1, LostRank.exit_code)

    @property
    def why(self) -> str:
        """In one line."""
        return self.lines[0].removeprefix("error: ").strip() if self.lines else f"it left with exit code {self.code}"


class Launcher:
    """Ranks of one machine. `command` starts one; the job's file is its last word."""

    def __init__(self, command: Sequence[str], job: Mapping[str, Any], ranks: int, patience: float | None) -> None:
        self.command, self.job, self.ranks, self.patience = list(command), dict(job), ranks, patience
        self.notices: list[int] = []
        self._noticed = self._at_once = 0.0
        self._alive: Sequence[Rank] = ()

    def run(self, restarts: int) -> int:
        """The exit code. Starts again at most so often, and not where two restarts have died at the same step."""
        before = {number: signal.signal(number, self._pass_on) for number in STOPS}
        try:
            return self._run(restarts)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self, restarts: int) -> int:
        died_at: list[int] = []
        while True:
            outcome = self._once()
            died_at.append(outcome.step)
            if not outcome.may_start_again or self.notices or len(died_at) > restarts:
                sys.stderr.writelines(outcome.lines)
                return outcome.code
            if len(died_at) > 2 and died_at[-1] == died_at[-2]:
                sys.stderr.write(f"error: given up, two restarts died at step {outcome.step}: {outcome.why}\n")
                sys.stderr.write("hint: it is no accident: --debug shows where, trainer.watchdog who\n")
                return outcome.code
            sys.stderr.write(f"warning: {outcome.why}; restart {len(died_at)} of {restarts}\n")
            if outcome.run_dir:
                self.job["config"] |= {"resume": outcome.run_dir, "run_dir": None}

    def _once(self) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="svdtrain-") as folder:
            place = Path(folder)
            (place / "job.json").write_text(json.dumps(self.job))
            with held_back():  # a rank is born deaf, and hears what came when it can answer
                ranks = [self._start(place, number) for number in range(self.ranks)]
                self._alive = ranks
            for number in self.notices:  # one that came while they were started
                self._tell(number)
            try:
                first, still = self._wait(place, ranks)
                last = beats(place)
            finally:
                self._alive = []
                for rank in ranks:
                    self._end(rank)
            for rank in ranks:
                rank.heard(GRACE)
        step, run_dir = max((b.step for b in last), default=0), next((b.run_dir for b in last if b.run_dir), "")
        return self._outcome(ranks, first, still, step, run_dir)

    def _start(self, place: Path, number: int) -> Rank:
        rank = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": self.ranks, "LOCAL_WORLD_SIZE": self.ranks}
        environment = os.environ | {name: str(value) for name, value in rank.items()} | {BEATS_VARIABLE: str(place)}
        process = subprocess.Popen(
            [*self.command, str(place / "job.json")],
            env=environment,
            stdin=subprocess.PIPE,  # closes when this process dies, however it dies
            stdout=None if number == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C reaches them once: through us
        )
        return Rank(number, process)

    def _wait(self, place: Path, ranks: Sequence[Rank]) -> tuple[Rank | None, str]:
        """Until all have left, or one has failed and the others had their time; the first that failed, or who stood still."""
        watch = Watch(place, self.patience, len(ranks))
        first: Rank | None = None
        deadline, looked = math.inf, 0.0
        while running := {rank.number: rank.process.pid for rank in ranks if rank.process.poll() is None}:
            if time.monotonic() > min(deadline, self._at_once or math.inf):
                break
            time.sleep(POLL)
            if first is None and (first := next((rank for rank in ranks if rank.process.poll()), None)):
                deadline = time.monotonic() + GRACE
                first.heard(1.0)
                if left := next((n for n, code in STOPS.items() if code == _stop_code(first) and not first.verdict), 0):
                    self._tell(left)  # before the first step each rank leaves by itself, and the others may not know
            if first is None and time.monotonic() - looked >= min(1.0, (self.patience or 1.0) / 4):
                looked = time.monotonic()
                if still := watch.still(running):
                    self._dump(ranks)
                    return None, told(still, watch.bound or 0)
        return first or next((rank for rank in ranks if rank.process.poll()), None), ""

    def _outcome(self, ranks: Sequence[Rank], first: Rank | None, still: str, step: int, run_dir: str) -> Outcome:
        stopped = STOPS[signal.Signals(self.notices[0])] if self.notices else 0
        if still:
            stood = f"; where each stood: {run_dir}/stacks-*" if run_dir else ""
            return Outcome(LostRank.exit_code, (f"error: {still}\n", f"hint: {AGAIN}{stood}\n"), step, run_dir)
        if first is None:
            return Outcome(stopped if any(rank.cut_short for rank in ranks) else 0, (), step, run_dir)
        failed = [rank for rank in (first, *ranks) if rank.process.returncode and not rank.cut_short]
        cause = next((rank for rank in failed if not rank.lost_another), first)
        code = _stop_code(cause)
        if code in STOPS.values() and not cause.verdict:
            return Outcome(stopped or code, (), step, run_dir)
        spoke = next((rank for rank in failed if rank.verdict and not rank.lost_another), None)
        if spoke:
            sys.stderr.writelines(spoke.trace)
            return Outcome(spoke.process.returncode, tuple(spoke.verdict), step, run_dir)
        lines = cause.verdict or [f"error: {cause.death} at step {step}\n", f"hint: {AGAIN}\n"]
        return Outcome(LostRank.exit_code, tuple(lines), step, run_dir)

    def _pass_on(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if not self.notices:
            self._noticed = now
        elif now - self._noticed > ONE_NOTICE:
            self._at_once = self._at_once or now + AT_ONCE
        self.notices.append(number)
        self._tell(number)

    def _tell(self, number: int) -> None:
        for rank in self._alive:
            with suppress(ProcessLookupError):
                rank.process.send_signal(number)

    @staticmethod
    def _dump(ranks: Sequence[Rank]) -> None:
        for rank in ranks:
            with suppress(ProcessLookupError):
                rank.process.send_signal(STACKS)
        time.sleep(0.5)

    @staticmethod
    def _end(rank: Rank) -> None:
        """With all that it has started."""
        rank.cut_short = rank.process.poll() is None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(rank.process.pid, signal.SIGKILL)
        rank.process.wait()


def _stop_code(rank: Rank) -> int:
    """The exit code; that of a signal where it came before the rank could handle it."""
    code = rank.process.returncode
    return STOPS[signal.Signals(-code)] if -code in STOPS else code


def leave_with_launcher() -> None:
    """In a rank: end as soon as the launcher has, so that nothing goes on holding the GPU and the run's folder."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(LostRank.exit_code)

    threading.Thread(target=wait, name="launcher", daemon=True).start()
