"""From the order to batches of pixels: what a global position holds, whatever the ranks and workers."""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from svdtrain.data.bad_samples import MOST_IN_A_ROW, BadSample
from svdtrain.data.buckets import Lanes, Sampling
from svdtrain.data.decoding import decode_frames, probe, verified_info
from svdtrain.data.frames import Window, choose_times
from svdtrain.data.stills import decode_still
from svdtrain.data.transforms import cover_size, to_pixels, to_unit
from svdtrain.foundation.errors import DataError, SvdtrainError
from svdtrain.foundation.seeding import generator, key_to_seed
from svdtrain.types import ClipBatch, EncodedClips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from svdtrain.data.clip import Clip
    from svdtrain.data.decoding import VideoInfo
    from svdtrain.data.isolation import DecodeChild
    from svdtrain.data.latent_cache import LatentCache
    from svdtrain.data.table import ClipTable

MOTION_BUCKET, STILL_FPS = 127.0, 7.0
"""What Stable Video Diffusion's pipeline takes when nothing is said."""


class Slot(NamedTuple):
    """A global position, and the clip (its place in the table) that the order puts there."""

    position: int
    clip: int


class Item(NamedTuple):
    """One clip, ready for a batch."""

    pixels_TCHW: Tensor
    """Of the first frame alone, where `encoded` holds (mean, logvar, embedding)."""
    fps: float
    motion_bucket: float
    key: str
    position: int
    caption: str
    encoded: tuple[Tensor, Tensor, Tensor] | None = None


class Loaded(NamedTuple):
    """A batch, and the clips that were tried in vain for it."""

    batch: ClipBatch
    bad: tuple[BadSample, ...]


def load_item(
    clip: Clip,
    sampling: Sampling,
    position: int,
    *,
    place: float = 0.0,
    flip: bool = False,
    child: DecodeChild | None = None,
) -> Item:
    """Read, decode and size one clip; `place` in [0, 1] moves its window. DataError names shard and key.

    What nobody has verified is decoded in `child`, where there is one.
    """
    data = clip.read()
    if clip.still:
        window = Window((0,), 0.0, sampling.fps or clip.fps or STILL_FPS)
        frames_THWC = decode_still(data, clip.name)
    else:
        info = look_at(clip, data, child)
        decode = child.decode_frames if child and not clip.known else decode_frames
        window = choose_times(info, sampling.frames, sampling.fps, place, clip.name, sampling.windows)
        size = cover_size(info.height, info.width, sampling.height, sampling.width)
        frames_THWC = decode(data, window.indices, clip.name, info, size=size)
    pixels_TCHW = to_pixels(frames_THWC, sampling.height, sampling.width, flip=flip)
    return _item(clip, sampling, position, pixels_TCHW, window.fps, window.start, flip=flip)


def load_encoded(
    clip: Clip, sampling: Sampling, position: int, latents: LatentCache, *, place: float = 0.0, flip: bool = False
) -> Item:
    """The same clip from a cache, without its video."""
    window = latents.read(latents.recipe.entry_id(clip, flip=flip)).window(place)
    pixels_TCHW = to_unit(window.image_CHW[None])
    item = _item(clip, sampling, position, pixels_TCHW, window.fps, window.start, flip=flip)
    return item._replace(encoded=(window.mean_TCHW, window.logvar_TCHW, window.embedding_LD))


def _item(
    clip: Clip, sampling: Sampling, position: int, pixels_TCHW: Tensor, fps: float, start: float, *, flip: bool
) -> Item:
    own_bucket = MOTION_BUCKET if clip.motion_bucket_id is None else clip.motion_bucket_id
    return Item(
        pixels_TCHW=pixels_TCHW,
        fps=fps,
        motion_bucket=own_bucket if sampling.motion_bucket is None else sampling.motion_bucket,
        key=f"{clip.key}@start={start:.4f},flip={flip:d}",
        position=position,
        caption=clip.told(sampling.trigger) if sampling.captions else "",
    )


def look_at(clip: Clip, data: bytes, child: DecodeChild | None = None) -> VideoInfo:
    """What a video holds: by its index where that vouches for it, else by a probe (in `child`, where there is one)."""
    if clip.known:
        assert clip.frames
        assert clip.fps
        assert clip.picture
        return verified_info(clip.frames, clip.fps, *clip.picture)
    return child.probe(data, clip.name) if child else probe(data, clip.name)


class ClipStream(Dataset[Item]):
    """Clips by slot. Holds no open file and no reader, so it may cross into workers (each starts a child of its own)."""

    def __init__(
        self,
        clips: ClipTable,
        lanes: Lanes,
        seed: int,
        *,
        flip: bool = False,
        workers: int = 0,
        skip: bool = False,
        child: DecodeChild | None = None,
    ) -> None:
        """skip: a clip that cannot be used is replaced; otherwise its error is the batch. child: see `load_item`."""
        self.clips, self.lanes, self.seed, self.flip, self.skip = clips, lanes, seed, flip, skip
        self.child = child
        self.seconds_by_worker = torch.zeros(max(1, workers), dtype=torch.float64).share_memory_()
        """Time spent on clips so far, by each worker."""
        self.latents: LatentCache | None = None
        """Where encodings are taken from, instead of videos."""

    def __len__(self) -> int:
        """Clips of one epoch; positions go on after them."""
        return len(self.clips)

    def __getitem__(self, slot: Slot) -> Item:
        """The clip of a slot, its window and flip drawn by (seed, position) alone."""
        sampling = self.lanes.samplings[self.lanes.lane_N[slot.clip]]
        return load_drawn(self, self.clips[slot.clip], sampling, slot.position)

    def __getitems__(self, slots: list[Slot]) -> Loaded | SvdtrainError:
        """A batch. An error is returned, not raised: a worker would turn it into a page of traceback."""
        bad: list[BadSample] = []
        try:
            items = [self._good(slot, bad) for slot in slots]
        except SvdtrainError as error:
            return copy(error)
        return Loaded(to_batch(items), tuple(bad))

    def reserve(self, slot: Slot, attempt: int) -> int:
        """The clip that stands in at a slot, of the same lane, by (seed, position, attempt) alone."""
        alike = np.flatnonzero(self.lanes.lane_N == self.lanes.lane_N[slot.clip])
        return int(alike[key_to_seed(self.seed, "reserve", slot.position, attempt) % len(alike)])

    def _good(self, slot: Slot, bad: list[BadSample]) -> Item:
        """The slot's clip, or the first of its reserves that can be used."""
        clip = slot.clip
        for attempt in range(MOST_IN_A_ROW):
            try:
                return self[Slot(slot.position, clip)]
            except DataError as error:
                if not self.skip:
                    raise
                broken = self.clips[clip]
                bad.append(BadSample(slot.position, broken.key, str(broken.shard), error.reason, error.message))
            clip = self.reserve(slot, attempt)
        message = f"{MOST_IN_A_ROW} clips in a row could not be used, the last: {bad[-1].message}"
        raise DataError(message, "look at the dataset: python -m svdtrain inspect DATASET")


def load_drawn(stream: ClipStream, clip: Clip, sampling: Sampling, position: int) -> Item:
    """A clip with its window and flip drawn by (seed, position) alone."""
    start = time.perf_counter()
    place = float(torch.rand((), generator=generator(stream.seed, "window", position), dtype=torch.float64))
    flip = stream.flip and float(torch.rand((), generator=generator(stream.seed, "flip", position))) < 0.5
    try:
        if stream.latents:
            return load_encoded(clip, sampling, position, stream.latents, place=place, flip=flip)
        return load_item(clip, sampling, position, place=place, flip=flip, child=stream.child)
    finally:
        worker = get_worker_info()
        stream.seconds_by_worker[worker.id if worker else 0] += time.perf_counter() - start


def to_batch(items: Sequence[Item]) -> ClipBatch:
    """Items of one shape, stacked."""
    rows = [item.encoded for item in items if item.encoded]
    return ClipBatch(
        pixels_BTCHW=torch.stack([item.pixels_TCHW for item in items]),
        fps_B=torch.tensor([item.fps for item in items], dtype=torch.float32),
        motion_bucket_B=torch.tensor([item.motion_bucket for item in items], dtype=torch.float32),
        keys_B=tuple(item.key for item in items),
        positions_B=tuple(item.position for item in items),
        captions_B=tuple(item.caption for item in items),
        encoded=EncodedClips(*(torch.stack(column) for column in zip(*rows, strict=True))) if rows else None,
    )
