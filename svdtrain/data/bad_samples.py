"""Clips that could not be used: replaced, written down, counted by reason, and too many of them end the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from svdtrain.foundation.errors import DataError
from svdtrain.foundation.json_lines import JsonLines
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
        self._file: JsonLines | None = None
        self._written: set[tuple[int, str]] = set()

    def write_to(self, file: Path) -> None:
        """Append to bad_samples.jsonl from now on; what a resumed run meets again is not written twice."""
        self._file = JsonLines(file)
        for row in filter(None, self._file.rows()):
            if isinstance(row.get("position"), int) and isinstance(row.get("key"), str):
                self._written.add((row["position"], row["key"]))

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
                f"see {self._file.file if self._file else 'the messages'}; "
                f"data.max_bad_fraction={self.policy.most:g} is what is allowed",
            )

    def by_reason(self) -> str:
        """For a message: 8 damaged, 4 too short."""
        return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.reasons.most_common())

    def _write(self, sample: BadSample, rank: int, step: int) -> None:
        if self._file is None or (sample.position, sample.key) in self._written:
            return
        self._written.add((sample.position, sample.key))
        self._file.append(redacted(sample._asdict()) | {"rank": rank, "step": step})
