"""Command lines of svdtrain in processes of their own: started, watched, killed, and what they said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOREIGN = ("SVDTRAIN_", "WANDB_", "SLURM_", "HF_", "MASTER_", "TRANSFORMERS_", "TORCHELASTIC_", "GROUP_", "ROLE_")
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK")
"""What the process that tests was given itself says nothing to those that are tested."""


@dataclass(frozen=True)
class Conditions:
    """What surrounds a command line."""

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """RLIMIT_FSIZE and the like -> bytes."""
    plain_rights: bool = False
    """Root is bound by modes, as others are."""
    stand_in: str = ""
    """Code that its interpreter, and those of the processes that it starts, run before all else, as their sitecustomize.py:
    for faults whose real cause cannot be had."""


class Child:
    """One that runs."""

    def __init__(self, nursery: Nursery, pid: int, stdout: Path, stderr: Path) -> None:
        self.nursery, self.pid, self.files = nursery, pid, (stdout, stderr)

    def wait(self, seconds: float) -> int | None:
        """Its exit code (-9 and the like when a signal killed it); None when it runs on."""
        return self.nursery.ask({"wait": self.pid, "seconds": seconds})["code"]

    def send(self, number: signal.Signals) -> None:
        """A signal to it alone."""
        os.kill(self.pid, number)

    def end(self) -> None:
        """It and what it has started are gone."""
        end_all(self.pid)
        self.wait(10)

    def said(self) -> tuple[str, str]:
        """stdout and stderr so far."""
        out, err = (file.read_text(errors="replace") for file in self.files)
        return out, err

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> bool:
        """Wait for it. False: it has ended before, or the time is over."""
        end = time.monotonic() + seconds
        while not condition():
            if self.wait(0.02) is not None or time.monotonic() > end:
                return bool(condition())
        return True


class Nursery:
    """Starts them, out of one process that has imported everything (see warm.py). For one thread."""

    def __init__(self, said: Path) -> None:
        """said: a folder for what they say."""
        self.folder, self.count = said, 0
        said.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "svdtrain.selftest.warm"]
        home = environment({"HOME": str(said)})  # packages look at it when they are imported
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=home, cwd=said
        )

    def start(self, words: list[str], folder: Path, conditions: Conditions) -> Child:
        """`python -m svdtrain WORDS` in this folder."""
        self.count += 1
        stdout, stderr = (self.folder / f"{self.count:04d}.{name}" for name in ("out", "err"))
        changes, code = dict(conditions.environment), self.folder / f"{self.count:04d}"
        if conditions.stand_in:
            code.mkdir()
            (code / "sitecustomize.py").write_text(conditions.stand_in)
            changes["PYTHONPATH"] = str(code)
        told = {
            "words": words,
            "folder": str(folder),
            "stdout": str(stdout),
            "stderr": str(stderr),
            "environment": environment(changes),
            "limits": dict(conditions.limits),
            "plain_rights": conditions.plain_rights,
            "stand_in": str(code / "sitecustomize.py") if conditions.stand_in else "",
        }
        return Child(self, self.ask({"start": told})["pid"], stdout, stderr)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line to the process, one line from it. SystemFault when it has ended."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemFault("selftest: the process that starts the commands has ended", "run it again")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's own without what concerns other runs; one thread, no network, the package where it lies."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN) and k not in RANK_VARIABLES}
    places = [str(PACKAGE.parent), *filter(None, [kept.get("PYTHONPATH")])]
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(places)}
    if "PYTHONPATH" in changes:
        changes = {**changes, "PYTHONPATH": os.pathsep.join([changes["PYTHONPATH"], *places])}
    return kept | fixed | dict(changes)


def end_all(pid: int) -> None:
    """Kill a process and all that it has started; they are gone, but for the one, for which its parent has to wait."""
    below = descendants(pid)
    for one in (*below, pid):  # ranks first: they would notice that their launcher has gone
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    while any(is_alive(one) for one in below):
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether it runs still; one that has ended and that nobody has asked after does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def descendants(pid: int) -> list[int]:
    """Processes below one, by /proc; none where there is no /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has just ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, waiting = list[int](), [pid]
    while waiting:
        parent = waiting.pop()
        below = [one for one, its_parent in parents.items() if its_parent == parent]
        found += below
        waiting += below
    return found
