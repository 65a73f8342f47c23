"""The same clips every time: spread over a table, from their first frame, never flipped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from svdtrain.data.stream import load_item, to_batch
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from svdtrain.data.buckets import Sampling
    from svdtrain.data.clip import Clip
    from svdtrain.data.isolation import DecodeChild
    from svdtrain.data.table import ClipTable
    from svdtrain.types import ClipBatch

log = logging.getLogger(__name__)


def spread(count: int, limit: int) -> list[int]:
    """Up to `limit` places among `count`, evenly."""
    chosen = min(limit, count)
    return [index * count // chosen for index in range(chosen)]


def fixed_clips(clips: ClipTable, limit: int) -> list[Clip]:
    """Up to `limit` videos of a table; stills say nothing of a video model."""
    videos = clips.where(~clips.number("still"))
    return [videos[place] for place in spread(len(videos), limit)]


def read_fixed(clip: Clip, sampling: Sampling, child: DecodeChild | None = None) -> ClipBatch:
    """A batch of one; what nobody has verified is decoded in `child`, where there is one. DataError names shard and key."""
    return to_batch([load_item(clip, sampling, 0, child=child)])


def read_spread(
    clips: ClipTable, limit: int, sampling: Sampling, child: DecodeChild | None = None, *, skip: bool = False
) -> list[ClipBatch]:
    """Up to `limit` clips, spread over a table, each a batch of 1. skip: the next good clip stands in for a bad one."""
    chosen = spread(len(clips), limit)
    taken = set(chosen)
    spare = (place for place in range(len(clips)) if place not in taken)
    batches: list[ClipBatch] = []
    for place in chosen:
        candidate: int | None = place
        while candidate is not None:
            try:
                batches.append(to_batch([load_item(clips[candidate], sampling, len(batches), child=child)]))
                break
            except DataError as error:
                if not skip:
                    raise
                log.warning("left out: %s", error.message)
                candidate = next(spare, None)
    return batches
