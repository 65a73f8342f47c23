"""Shards without an index, read as they come: nothing is listed ahead, and so nothing is exactly resumable.

Every epoch shuffles the shards, then the clips of a few shards together. Each loader process reads shards of its own
(or, when there are fewer shards than processes, its share of every shard's clips).
"""

from __future__ import annotations

import logging
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from svdtrain.data.bad_samples import MOST_IN_A_ROW, BadSample
from svdtrain.data.datamodule import ClipDataModule
from svdtrain.data.loading import ClipLoader
from svdtrain.data.manifest import Manifest, Summary, read_shards
from svdtrain.data.shard_cache import ShardCache
from svdtrain.data.sources import list_shards
from svdtrain.data.stream import Loaded, load_drawn, to_batch
from svdtrain.foundation.errors import DataError, SvdtrainError
from svdtrain.foundation.seeding import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from svdtrain.data.buckets import Sampling
    from svdtrain.data.clip import Clip
    from svdtrain.data.sources import ListedShard
    from svdtrain.data.stream import ClipStream

log = logging.getLogger(__name__)


class StreamedBatches(IterableDataset[Loaded | SvdtrainError]):
    """One rank's batches. Global positions are counted as in the exact order, so that every draw has a key of its own."""

    def __init__(
        self,
        shards: Sequence[ListedShard],
        stream: ClipStream,
        *,
        batch: int,
        rank: int,
        world: int,
        first: int,
        total: int,
        window: int,
        sampling: Sampling,
        stills: bool,
    ) -> None:
        """stream: how clips become items of one `sampling`; batch: clips of a rank; batches `first` to `total` of the run."""
        self.shards, self.stream, self.window, self.sampling, self.stills = shards, stream, window, sampling, stills
        self.batch, self.rank, self.world, self.first, self.total = batch, rank, world, first, total

    def __iter__(self) -> Iterator[Loaded | SvdtrainError]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            clips = self._clips(self.rank * workers + number, self.world * workers)
            for place in range(self.first + number, self.total, workers):
                start = (place * self.world + self.rank) * self.batch
                yield self._batch(clips, range(start, start + self.batch))
        except SvdtrainError as error:
            yield copy(error)

    def _clips(self, reader: int, readers: int) -> Iterator[Clip]:
        """Endless: what one of all loader processes reads."""
        epoch = seen = 0
        while True:
            key = (self.stream.seed, "streaming", self.first, epoch)
            order = torch.randperm(len(self.shards), generator=generator(*key)).tolist()
            share = len(order) >= readers
            mine = [self.shards[place] for place in (order[reader::readers] if share else order)]
            for begin in range(0, len(mine), self.window):
                table = read_shards(mine[begin : begin + self.window], stills=self.stills)
                salt = reader if share else -1
                for place in torch.randperm(len(table), generator=generator(*key, begin, salt)).tolist():
                    if share or seen % readers == reader:
                        yield table[place]
                    seen += 1
            epoch += 1

    def _batch(self, clips: Iterator[Clip], positions: range) -> Loaded:
        """The next clips; one that cannot be used gives its place to the one after it."""
        items, bad = [], []
        for position in positions:
            for _ in range(MOST_IN_A_ROW):
                clip = next(clips)
                try:
                    items.append(load_drawn(self.stream, clip, self.sampling, position))
                    break
                except DataError as error:
                    if not self.stream.skip:
                        raise
                    bad.append(BadSample(position, clip.key, str(clip.shard), error.reason, error.message))
            else:
                message = f"{MOST_IN_A_ROW} clips in a row could not be used, the last: {bad[-1].message}"
                raise DataError(message, "look at the dataset: python -m svdtrain inspect DATASET")
        return Loaded(to_batch(items), tuple(bad))


class StreamingDataModule(ClipDataModule):
    """Clips of shards that are never listed whole. Held out are the shards named held_out-*, or else the last one."""

    @cached_property
    def _listed(self) -> tuple[list[ListedShard], list[ListedShard]]:
        """Shards to train on, shards to hold out."""
        names = [self.source] if isinstance(self.source, str) else self.source
        shards = [shard for name in names for shard in list_shards(str(name), self.cache or ShardCache.at())]
        held_out = [shard for shard in shards if shard.held_out] or shards[-1:]
        train = [shard for shard in shards if shard not in held_out]
        if not train:
            message = f"data.source={self.source!r} holds one shard, and streaming holds out whole shards"
            raise DataError(message, "data.order=exact, or give it more shards")
        return train, held_out

    @cached_property
    def manifest(self) -> Manifest:
        """Of the held-out shards and one of the others, which stands for them all when the data are checked."""
        train, held_out = self._listed
        return Manifest(read_shards(train[:1], stills=self.stills), read_shards(held_out, stills=self.stills))

    def describe(self) -> Summary:
        """What is known without reading every shard."""
        train, held_out = self._listed
        known = self.manifest.held_out
        return Summary(
            train_clips=None,
            held_out_clips=len(known),
            train_sources=None,
            held_out_sources=len(set(known.every_source())),
            shards=len(train) + len(held_out),
            bytes=None,
            fingerprint=self.manifest.fingerprint,
        )

    def train_dataloader(self) -> ClipLoader:
        """ClipBatches; after a restart of other clips than would have come."""
        rank, world = self._rank
        if self.consumed_batches:
            log.warning("data.order=stream cannot go on where it was: the shards are shuffled anew")
        batches = StreamedBatches(
            self._listed[0],
            self.stream,
            batch=self.batch_size,
            rank=rank,
            world=world,
            first=self.consumed_batches,
            total=self.max_batches,
            window=self.shuffle_shards,
            sampling=self.sampling,
            stills=self.stills,
        )
        options: dict[str, Any] = {"pin_memory": torch.cuda.is_available()}
        return ClipLoader(batches, workers=self.workers, note=self._note, **options)

    def state_dict(self) -> dict[str, Any]:
        """As in the exact order, which this is not."""
        return super().state_dict() | {"order": "stream"}
