"""What a row of the table says: a fault, the command lines that meet it, and what each has to come to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from svdtrain.selftest.children import Child, Conditions

if TYPE_CHECKING:
    from svdtrain.selftest.faults.place import Place

GROUPS = (("Input", 17), ("Config", 27), ("System", 42), ("Numeric", 47), ("Adapter and export", 54))
"""Name and last number."""
PLAIN = Conditions()


class Broken(Exception):
    """A promise that was not kept, in a sentence."""


@dataclass(frozen=True)
class Run:
    """A command line, and what it has to come to."""

    words: Sequence[str]
    """After `python -m svdtrain`; paths are from the row's folder, where it runs."""
    code: int
    says: tuple[str, ...] = ()
    """Each in its error line, or where it has none in anything that it says."""
    changes: tuple[str, ...] = ()
    """Patterns of files, from the row's folder, that may come, change or go: all others have to stay, byte for byte."""
    under: Conditions = PLAIN
    meanwhile: Callable[[Child], None] | None = None
    """What is done to it while it runs."""
    seconds: float = 60
    """After which it hangs."""
    shown: bool = True
    """In the documentation's table; False: it only prepares the fault."""
    stopped: bool = False
    """By a signal: no error, whatever its exit code."""

    @property
    def fails(self) -> bool:
        """Whether it has to end in an error line."""
        return self.code != 0 and not self.stopped


@dataclass(frozen=True)
class Answer:
    """What a run came to."""

    code: int | None
    """None: it hung."""
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """Its error lines, without `error: `."""
        found = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return [line.removeprefix("error: ") for line in found]


Runs = Generator[Run, Answer | None, None]
"""Run after run; each is given the answer to its last one, and may raise Broken."""


@dataclass(frozen=True)
class Fault:
    """A row."""

    number: int
    name: str
    runs: Callable[[Place], Runs]
    lacks: Callable[[], str] | None = None
    """Why it cannot be tried on this machine; empty: it can."""

    @property
    def group(self) -> str:
        """The part of the table that it stands in."""
        return next(name for name, last in GROUPS if self.number <= last)
