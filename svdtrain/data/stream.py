"""The order of training: global positions, each one a clip and its randomness, whatever the ranks and workers."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.data.frames import choose_times
from svdtrain.data.transforms import to_pixels
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.seeding import generator
from svdtrain.types import ClipBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from svdtrain.data.clip import Clip

MOTION_BUCKET = 127.0
"""What Stable Video Diffusion's pipeline takes when nothing is said."""


class ClipOrder:
    """The endless order: every epoch is a permutation of the clips, a pure function of (seed, epoch)."""

    def __init__(self, clips: int, seed: int) -> None:
        assert clips > 0
        self.clips, self.seed = clips, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def clip_at(self, position: int) -> int:
        """The clip at a global position; position // clips is the epoch."""
        epoch, place = divmod(position, self.clips)
        if epoch != self._epoch:
            draw = generator(self.seed, "order", epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self.clips, generator=draw)
        return int(self._permutation[place])


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


@dataclass(frozen=True)
class Item:
    """One clip, ready for a batch."""

    pixels_TCHW: Tensor
    fps: float
    motion_bucket: float
    key: str
    position: int


def load_item(clip: Clip, sampling: Sampling, position: int, *, place: float = 0.0, flip: bool = False) -> Item:
    """Read, decode and size one clip; `place` in [0, 1] moves its window. DataError names shard and key."""
    data = clip.read()
    info = probe(data, clip.name)
    window = choose_times(info, sampling.frames, sampling.fps, place, clip.name)
    frames_THWC = decode_frames(data, window.indices, clip.name, info)
    own_bucket = MOTION_BUCKET if clip.motion_bucket_id is None else clip.motion_bucket_id
    return Item(
        pixels_TCHW=to_pixels(frames_THWC, sampling.height, sampling.width, flip=flip),
        fps=window.fps,
        motion_bucket=own_bucket if sampling.motion_bucket is None else sampling.motion_bucket,
        key=f"{clip.key}@start={window.start:.4f},flip={flip:d}",
        position=position,
    )


class ClipStream(Dataset[Item]):
    """Clips by global position. Holds no open file and no reader, so it may cross into workers."""

    def __init__(self, clips: Sequence[Clip], sampling: Sampling, seed: int, *, flip: bool, workers: int = 0) -> None:
        self.clips, self.sampling, self.seed, self.flip = tuple(clips), sampling, seed, flip
        self.order = ClipOrder(len(self.clips), seed)
        self.seconds_by_worker = torch.zeros(max(1, workers), dtype=torch.float64).share_memory_()
        """Time spent on clips so far, by each worker."""

    def __len__(self) -> int:
        """Clips of one epoch; positions go on after them."""
        return len(self.clips)

    def __getitem__(self, position: int) -> Item:
        """The clip at a position, its window and flip drawn by (seed, position) alone."""
        start = time.perf_counter()
        clip = self.clips[self.order.clip_at(position)]
        place = float(torch.rand((), generator=generator(self.seed, "window", position), dtype=torch.float64))
        heads = float(torch.rand((), generator=generator(self.seed, "flip", position))) < 0.5
        item = load_item(clip, self.sampling, position, place=place, flip=self.flip and heads)
        worker = get_worker_info()
        self.seconds_by_worker[worker.id if worker else 0] += time.perf_counter() - start
        return item

    def __getitems__(self, positions: list[int]) -> list[Item] | DataError:
        """A batch. An error is returned, not raised: a worker would turn it into a page of traceback."""
        try:
            return [self[position] for position in positions]
        except DataError as error:
            return DataError(error.message, error.hint)


class GlobalBatches(Sampler[list[int]]):
    """Positions of one rank's part of each global batch: batch k is [k * G, (k + 1) * G), cut into a part per rank."""

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1, first: int = 0, total: int) -> None:
        """batch_size clips per rank, G = batch_size * world; batches `first` to `total` of the run."""
        assert batch_size > 0
        assert 0 <= rank < world
        self.batch_size, self.rank, self.world, self.first, self.total = batch_size, rank, world, first, total

    def __len__(self) -> int:
        """Batches of the whole run, the first ones included: Lightning compares it with the batch it resumes at."""
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first, self.total):
            start = (batch * self.world + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


class ClipLoader(DataLoader[Any]):
    """A DataLoader that raises a worker's DataError as it was."""

    def __iter__(self) -> Iterator[ClipBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def ignore_signals(_worker: int) -> None:
    """For a worker: a terminal or a cluster signals the whole process group, and a run that stops needs its workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def collate(items: list[Item] | DataError) -> ClipBatch | DataError:
    """What the DataLoader makes of __getitems__: a batch, or the error as it is."""
    return items if isinstance(items, DataError) else to_batch(items)


def to_batch(items: list[Item]) -> ClipBatch:
    """Items of one shape, stacked."""
    return ClipBatch(
        pixels_BTCHW=torch.stack([item.pixels_TCHW for item in items]),
        fps_B=torch.tensor([item.fps for item in items], dtype=torch.float32),
        motion_bucket_B=torch.tensor([item.motion_bucket for item in items], dtype=torch.float32),
        keys_B=tuple(item.key for item in items),
        positions_B=tuple(item.position for item in items),
    )
