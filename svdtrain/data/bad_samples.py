"""Clips that could not be used: replaced, written down, counted by reason, and too many of them end the run."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_IN_A_ROW = 100
FEWEST_COUNTED = 10
"""So many must have been met before their share ends a run."""


class BadSample(NamedTuple):
    """A clip that was drawn for a global position and could not be used."""

    position: int
    key: str
    shard: str
    reason: str
    message: str
    """The whole error."""


@dataclass(frozen=True)
class BadSamplePolicy:
    """What becomes of a run that meets them."""

    skip: bool = False
    """False: the first one ends the run."""
    most: float = 0.01
    """Share of this rank's samples above which the run ends."""


class BadSamples:
    """Those that this rank has met."""

    def __init__(self, policy: BadSamplePolicy) -> None:
        self.policy = policy
        self.reasons: Counter[str] = Counter()
        self.samples = 0
        """All that were drawn, good and bad."""
        self._file: Path | None = None
        self._written: set[tuple[int, str]] = set()

    def write_to(self, file: Path) -> None:
        """Append to bad_samples.jsonl from now on; what a resumed run meets again is not written twice."""
        self._file = file
        if file.exists():
            for line in file.read_bytes().splitlines():
                with suppress(
                    ValueError, TypeError, KeyError, RecursionError
                ):  # a line that a full disk cut short says nothing
                    row = json.loads(line)
                    self._written.add((row["position"], row["key"]))
            if file.stat().st_size and not file.read_bytes().endswith(b"\n"):
                self._append("\n")

    def count(self, good: int, bad: Iterable[BadSample], *, rank: int, step: int) -> None:
        """Note a batch's samples. DataError when too many were bad so far."""
        last = None
        for last in bad:
            self.reasons[last.reason] += 1
            self._write(last, rank, step)
        met = self.reasons.total()
        self.samples += good
        if last and met >= FEWEST_COUNTED and met > self.policy.most * (met + self.samples):
            raise DataError(
                f"{met} of {met + self.samples} clips could not be used ({self.by_reason()}), the last: {last.message}",
                f"see {self._file or 'the messages'}; data.max_bad_fraction={self.policy.most:g} is what is allowed",
            )

    def by_reason(self) -> str:
        """For a message: 8 damaged, 4 too short."""
        return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.reasons.most_common())

    def _write(self, sample: BadSample, rank: int, step: int) -> None:
        if self._file is None or (sample.position, sample.key) in self._written:
            return
        self._written.add((sample.position, sample.key))
        self._append(json.dumps(redacted(sample._asdict()) | {"rank": rank, "step": step}, sort_keys=True) + "\n")

    def _append(self, line: str) -> None:
        assert self._file
        try:
            with self._file.open("a") as file:  # one write at its end: lines of several ranks do not mix
                file.write(line)
        except OSError as error:
            raise SystemFault(
                f"{self._file} cannot be written: {error.strerror}", "free space or rights there"
            ) from error
