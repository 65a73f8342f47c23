"""Lanes: clips that may stand in one batch, because they become tensors of one shape and are of one kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from svdtrain.data.table import ClipTable


@dataclass(frozen=True)
class Sampling:
    """How a clip becomes a tensor."""

    frames: int
    height: int
    width: int
    fps: float | None
    """None: the clip's own."""
    motion_bucket: float | None
    """None: what the clip's metadata says."""
    captions: bool = False
    """Whether batches carry them."""
    trigger: str = ""
    """Put before every caption."""
    windows: int | None = None
    """Places in a clip where its window may start; None: wherever it fits."""


@dataclass(frozen=True)
class Lanes:
    """Which clips stand together, and how those of each lane are sampled."""

    lane_N: np.ndarray
    samplings: tuple[Sampling, ...]


def lanes_of(clips: ClipTable, sampling: Sampling, *, buckets: bool, multiple: int = 1) -> Lanes:
    """One lane for videos at the size of `sampling`, or (buckets) one for each size that preparation assigned.

    Stills are clips of one frame, and never stand beside videos. DataError for a bucket whose sides are no multiples
    of what the model can take.
    """
    bucket_N = clips.number("bucket") if buckets else np.full(len(clips), -1)
    codes, lane_N = np.unique(2 * (bucket_N + 1) + clips.number("still"), return_inverse=True)
    samplings: list[Sampling] = []
    for code in codes.tolist():
        bucket, still = divmod(code, 2)
        one = sampling
        if bucket:
            height, width, frames = clips.columns.buckets[bucket - 1]
            one = replace(sampling, height=height, width=width, frames=frames)
            if height % multiple or width % multiple:
                message = f"bucket {height}x{width} of data.source does not suit the model: no multiples of {multiple}"
                raise DataError(message, "prepare the dataset with other buckets, or data.buckets=false")
        samplings.append(replace(one, frames=1) if still else one)
    return Lanes(lane_N, tuple(samplings))
