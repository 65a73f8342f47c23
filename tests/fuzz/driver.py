"""Many inputs in long-lived child processes; one that dies, hangs or eats the memory is a finding like any other.

python -m tests.fuzz.driver WORLD SEED      the child: reads "KIND NUMBER" lines, answers each with a line of JSON
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue

from svdtrain.data.isolation import DecodeChild
from tests.fuzz.place import SECONDS, make_world
from tests.fuzz.verdict import KINDS, Verdict, judged, numbered
from tests.tiny_models import save_tiny_text

REPOSITORY = Path(__file__).parents[2]
START, PATIENCE = 120.0, 30.0
"""Seconds until a child is ready, and until one that does not answer is killed."""
MOST_MEMORY = 10**9
"""Bytes that a child and its decoder may hold in all."""
MORE_ADDRESSES = 2**30
"""Bytes that a child may reserve after it has imported everything: more is a MemoryError."""
REFRESHED = 500
"""Inputs after which a child is started anew."""


class Child:
    """A process that judges."""

    def __init__(self, world: Path, seed: int) -> None:
        program = [sys.executable, "-m", "tests.fuzz.driver", str(world), str(seed)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"HOME": str(world / "home"), "HF_HOME": str(world / "home")},
            cwd=world,
            start_new_session=True,
        )
        self.judged = 0
        self._answer(START)

    def judge(self, kind: str, number: int) -> Verdict:
        """One input's verdict. A child that is gone afterwards has `judged` below 0."""
        assert self._process.stdin
        self._process.stdin.write(f"{number} {kind}\n".encode())
        self._process.stdin.flush()
        line = self._answer(PATIENCE)
        self.judged += 1
        if line:
            verdict = Verdict(**json.loads(line))
            too_much = verdict.memory > MOST_MEMORY and not verdict.finding
            return replace(verdict, code=1, finding=f"{verdict.memory:,} bytes in all") if too_much else verdict
        self.judged = -1
        code = self._process.poll()
        how = f"no answer in {PATIENCE:g} s" if code is None else f"the process ended with {code}"
        self.close()
        return Verdict(kind, number, 1, "", PATIENCE, 0, how)

    def close(self) -> None:
        """End it and its decoder."""
        if self._process.poll() is None:  # its number may be another's once it has ended
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answer(self, seconds: float) -> bytes:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        if ready and not line:
            self._process.wait()
        return line


def run(inputs: Iterable[tuple[str, int]], seed: int, *, processes: int = 1) -> Iterator[Verdict]:
    """The verdicts of (kind, number) inputs, as they come. What was slow is run again in a new child before it is one."""
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(processes) as pool:
        world = Path(root) / "world"
        (world / "home").mkdir(parents=True)
        make_world(world)
        save_tiny_text(world / "text")
        waiting, verdicts = iter(inputs), SimpleQueue[Verdict | None]()
        workers = [pool.submit(_work, world, seed, waiting, verdicts) for _ in range(processes)]
        ended = 0
        while ended < processes:
            verdict = verdicts.get()
            ended += verdict is None
            if verdict:
                yield verdict
        for worker in workers:
            worker.result()


def _work(world: Path, seed: int, waiting: Iterator[tuple[str, int]], verdicts: SimpleQueue[Verdict | None]) -> None:
    child: Child | None = None
    try:
        for kind, number in waiting:  # a list's iterator is safe among threads
            child = child or Child(world, seed)
            verdict = child.judge(kind, number)
            if verdict.finding and verdict.seconds > SECONDS:
                child.close()
                child = Child(world, seed)
                verdict = child.judge(kind, number)
            verdicts.put(verdict)
            if not 0 <= child.judged < REFRESHED:
                child.close()
                child = None
    finally:
        if child:
            child.close()
        verdicts.put(None)


def numbers(count: int) -> list[tuple[str, int]]:
    """So many inputs, of each kind in turn."""
    return list(itertools.islice(((kind, number) for number in itertools.count() for kind in KINDS), count))


def serve(world: Path, seed: int) -> None:
    """The child."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what svdtrain prints is no answer
    child = DecodeChild(SECONDS)
    with tempfile.TemporaryDirectory(dir=world.parent) as root:
        for kind in KINDS:
            judged(kind, -1, numbered(seed, kind, -1), world, Path(root), child)
        reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (reserved + MORE_ADDRESSES, resource.RLIM_INFINITY))
        answers.write("ready\n")
        answers.flush()
        for line in sys.stdin:
            number, _, kind = line.strip().partition(" ")
            verdict = judged(kind, int(number), numbered(seed, kind, int(number)), world, Path(root), child)
            answers.write(json.dumps(asdict(verdict)) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
