"""The order of training: endless global batches of clips, a pure function of the seed and of what the manifest lists.

Three steps, each of which can be entered anywhere. Every source has its epochs: shards in random order, clips in random
order within windows of a few shards. Sources are interleaved by their weights. The clips then queue up, one queue per
lane (a size and length, see `Lane`), and a queue that holds a whole batch is the next batch; so nothing is dropped or
repeated at the end of an epoch, and one lane alone gives the clips in the very order in which they came.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.seeding import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST_CYCLE = 1_000_000
STRETCH = 4096


class SourceOrder:
    """One source's endless order: every epoch is a permutation of its clips."""

    def __init__(self, clips_N: np.ndarray, shards_N: np.ndarray, *, seed: int, number: int, window: int) -> None:
        """clips_N: what is ordered; shards_N: the shard of each, not falling; `window` shards are shuffled together."""
        assert len(clips_N) == len(shards_N) > 0
        self.clips_N, self.seed, self.number, self.window = clips_N, seed, number, window
        starts = np.flatnonzero(np.diff(shards_N, prepend=-1))
        self.bounds = list(zip(starts.tolist(), [*starts[1:].tolist(), len(clips_N)], strict=True))
        self._epochs: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Clips of an epoch."""
        return len(self.clips_N)

    def epoch(self, epoch: int) -> np.ndarray:
        """The clips in the order of one epoch."""
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = self.clips_N[self._permutation(epoch)]
        return self._epochs[epoch]

    def take(self, places_M: np.ndarray) -> np.ndarray:
        """The clips at places of the endless order."""
        epochs_M, inside_M = np.divmod(places_M, len(self))
        found_M = np.empty(len(places_M), self.clips_N.dtype)
        for epoch in np.unique(epochs_M).tolist():
            here_M = epochs_M == epoch
            found_M[here_M] = self.epoch(epoch)[inside_M[here_M]]
        return found_M

    def _permutation(self, epoch: int) -> np.ndarray:
        draw = generator(self.seed, "order", epoch, *([self.number] if self.number else []))
        if len(self.bounds) <= self.window:
            return torch.randperm(len(self), generator=draw).numpy()
        shards = torch.randperm(len(self.bounds), generator=draw).tolist()
        parts: list[np.ndarray] = []
        for first in range(0, len(shards), self.window):
            ranges = [np.arange(*self.bounds[shard]) for shard in sorted(shards[first : first + self.window])]
            inside = np.concatenate(ranges)
            parts.append(inside[torch.randperm(len(inside), generator=draw).numpy()])
        return np.concatenate(parts)


class Interleave:
    """Which source gives the next clip: a cycle in which each has its share, spread evenly."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Exact for weights as they are written. UsageError when that takes more than a million clips."""
        exact = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        whole = [int(weight * scale) for weight in exact]
        divisor = math.gcd(*whole)
        self.shares = [number // divisor for number in whole]
        self.length = sum(self.shares)
        if self.length > LONGEST_CYCLE:
            raise UsageError(
                f"data.source: weights {', '.join(map(str, weights))} repeat only after {self.length:,} clips",
                "write them with fewer digits",
            )
        moments = np.concatenate([(np.arange(share) + 0.5) / share for share in self.shares])
        sources = np.repeat(np.arange(len(self.shares)), self.shares)
        self.source_P = sources[np.lexsort((sources, moments))]
        ranks = [np.cumsum(self.source_P == source) for source in range(len(self.shares))]
        self.before_SP = np.stack([np.concatenate([[0], rank[:-1]]) for rank in ranks])

    def taken(self, place: int) -> list[int]:
        """How many clips each source has given before a place."""
        cycles, inside = divmod(place, self.length)
        return [cycles * share + int(before[inside]) for share, before in zip(self.shares, self.before_SP, strict=True)]

    def take(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """(source [M], place in that source's endless order [M]) of a stretch."""
        cycles_M, inside_M = np.divmod(np.arange(start, end), self.length)
        source_M = self.source_P[inside_M]
        return source_M, cycles_M * np.array(self.shares)[source_M] + self.before_SP[source_M, inside_M]


class BatchOrder:
    """The endless global batches."""

    def __init__(
        self,
        shards_N: np.ndarray,
        lanes_N: np.ndarray,
        sources_N: np.ndarray,
        *,
        weights: Sequence[float] = (1.0,),
        seed: int,
        window: int,
        batch: int,
    ) -> None:
        """For each clip its shard, its lane and its source (all counted from 0); `batch` clips make a global batch."""
        self.lanes_N, self.batch = lanes_N, batch
        self.lanes = int(lanes_N.max()) + 1
        self.interleave = Interleave(weights)
        clips = [np.flatnonzero(sources_N == source) for source in range(len(weights))]
        self.sources = [
            SourceOrder(clips_M, shards_N[clips_M], seed=seed, number=number, window=window)
            for number, clips_M in enumerate(clips)
        ]
        self._lanes_of_source = [np.bincount(lanes_N[clips_M], minlength=self.lanes) for clips_M in clips]

    def clips(self, start: int, end: int) -> np.ndarray:
        """A stretch of the interleaved sources, before they queue up."""
        source_M, place_M = self.interleave.take(start, end)
        found_M = np.empty(end - start, np.int64)
        for number, source in enumerate(self.sources):
            here_M = source_M == number
            found_M[here_M] = source.take(place_M[here_M])
        return found_M

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        """The clips [batch] of each global batch from number `first` on."""
        start = first * self.batch  # so many clips cannot have made more than `first` batches
        arrived = self._arrived(start)
        queues = self._waiting(start, arrived % self.batch)
        skip = first - int((arrived // self.batch).sum())
        while True:
            for clip in self.clips(start, start + STRETCH).tolist():
                queue = queues[self.lanes_N[clip]]
                queue.append(clip)
                if len(queue) == self.batch:
                    if skip == 0:
                        yield np.array(queue)
                    skip = max(0, skip - 1)
                    queue.clear()
            start += STRETCH

    def _arrived(self, place: int) -> np.ndarray:
        """int64 [lanes]: how many clips have come to each lane before a place of the interleaved sources."""
        total = np.zeros(self.lanes, np.int64)
        for source, counts, taken in zip(
            self.sources, self._lanes_of_source, self.interleave.taken(place), strict=True
        ):
            epochs, rest = divmod(taken, len(source))
            total += epochs * counts
            if rest and self.lanes == 1:
                total += rest
            elif rest:
                total += np.bincount(self.lanes_N[source.epoch(epochs)[:rest]], minlength=self.lanes)
        return total

    def _waiting(self, place: int, waiting: np.ndarray) -> list[list[int]]:
        """The queues before a place: the last `waiting` clips of each lane, found backwards."""
        queues: list[list[int]] = [[] for _ in range(self.lanes)]
        left = waiting.copy()
        while left.any():
            start = max(0, place - max(STRETCH, min(map(len, self.sources))))
            clips_M = self.clips(start, place)
            for lane in np.flatnonzero(left).tolist():
                found = clips_M[self.lanes_N[clips_M] == lane][-left[lane] :].tolist()
                queues[lane] = found + queues[lane]
                left[lane] -= len(found)
            place = start
        return queues
