"""The data of a run: training batches that can be resumed, and held-out clips."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

from svdtrain.data.bad_samples import FEWEST_COUNTED, BadSamplePolicy, BadSamples
from svdtrain.data.buckets import Sampling, lanes_of
from svdtrain.data.fixed import read_fixed, read_spread, spread
from svdtrain.data.frames import choose_times
from svdtrain.data.isolation import DecodeChild
from svdtrain.data.loading import ClipLoader, GlobalBatches
from svdtrain.data.manifest import Manifest, Source, Summary, read_manifest
from svdtrain.data.order import BatchOrder
from svdtrain.data.place import changes_of_place
from svdtrain.data.stream import ClipStream, Loaded, look_at
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from svdtrain.data.clip import Clip
    from svdtrain.data.shard_cache import ShardCache
    from svdtrain.data.table import ClipTable
    from svdtrain.types import ClipBatch

MOST_CHECKED = 256

log = logging.getLogger(__name__)


class ClipDataModule(pl.LightningDataModule):
    """Clips of a dataset for a Trainer made with use_distributed_sampler=False.

    The run's place in the data is one integer, `consumed_batches`: the training loop adds one after each batch it has
    used (the loader runs ahead of it and cannot know).
    """

    def __init__(
        self,
        source: Source,
        *,
        frames: int,
        height: int,
        width: int,
        fps: float | None,
        motion_bucket: float | None,
        batch_size: int,
        workers: int,
        seed: int,
        horizontal_flip: bool,
        max_batches: int,
        shuffle_shards: int = 16,
        buckets: bool = False,
        multiple: int = 1,
        stills: bool = False,
        captions: bool = False,
        trigger: str = "",
        bad: BadSamplePolicy | None = None,
        batches_per_step: int = 1,
        verify: bool = False,
        allow_change: bool = False,
        cache: ShardCache | None = None,
        deadline: float | None = None,
        windows: int | None = None,
    ) -> None:
        """batch_size clips per rank; fps None: each clip's own; motion_bucket None: what each clip's metadata says.

        max_batches: how many batches a run hands out in all, before and after resuming. buckets: each clip at the size
        that preparation assigned (sides multiples of `multiple`) instead of frames x height x width. stills: pictures
        are clips too, as they always are where frames is 1. captions: batches carry them, each begun with `trigger`.
        verify: compare the hash of every shard that a manifest lists. deadline: seconds that a child process has for a
        clip which no index has verified; None: this process decodes it.
        """
        super().__init__()
        self.source, self.seed, self.horizontal_flip = source, seed, horizontal_flip
        self.sampling = Sampling(frames, height, width, fps, motion_bucket, captions, trigger, windows)
        self.batch_size, self.workers, self.max_batches = batch_size, workers, max_batches
        self.shuffle_shards, self.buckets = shuffle_shards, buckets
        self.multiple = multiple
        self.stills, self.verify, self.allow_change, self.cache = stills or frames == 1, verify, allow_change, cache
        self.bad_samples = BadSamples(bad or BadSamplePolicy())
        self.batches_per_step = batches_per_step
        self.deadline = deadline
        self.consumed_batches = 0
        self._checked = False

    @cached_property
    def manifest(self) -> Manifest:
        """Listed once, when it is first asked for."""
        return read_manifest(self.source, stills=self.stills, full=self.verify, cache=self.cache)

    @cached_property
    def stream(self) -> ClipStream:
        """The training clips by slot."""
        clips = self.manifest.train
        lanes = lanes_of(clips, self.sampling, buckets=self.buckets, multiple=self.multiple)
        return ClipStream(
            clips,
            lanes,
            self.seed,
            flip=self.horizontal_flip,
            workers=self.workers,
            skip=self.bad_samples.policy.skip,
            child=self._child(),
        )

    @property
    def sizes(self) -> list[tuple[int, int, int]]:
        """Frames, heights and widths of the training clips' tensors."""
        return [(one.frames, one.height, one.width) for one in self.stream.lanes.samplings]

    def order(self, batch: int) -> BatchOrder:
        """The endless global batches of `batch` clips."""
        clips = self.manifest.train
        return BatchOrder(
            clips.shard_N,
            self.stream.lanes.lane_N,
            clips.source_N,
            weights=self.manifest.weights,
            seed=self.seed,
            window=self.shuffle_shards,
            batch=batch,
        )

    @property
    def decode_seconds(self) -> float:
        """Time that all workers spent on reading and decoding so far."""
        return float(self.stream.seconds_by_worker.sum())

    def describe(self) -> Summary:
        """Counts, sizes, sources and the fingerprint of the dataset."""
        return self.manifest.describe()

    def setup(self, stage: str) -> None:  # noqa: ARG002 (Lightning's signature)
        """Find faults before the first step, once: the Trainer calls it again."""
        if not self._checked:
            self.check()

    def check(self) -> None:
        """Demux up to 256 clips: those whose index says that they will not do, then some of all, spread over the dataset.

        DataError when one is too short, too slow or no video; where bad samples are skipped, when too many of them are.
        """
        lanes, train = self.stream.lanes, self.manifest.train
        remote = [shard.remote for shard in train.columns.shards if shard.remote]
        if remote:
            remote[0].cache.check_room(remote, self.shuffle_shards * len(self.manifest.weights))
        chosen = spread(len(train), MOST_CHECKED)
        if not self.bad_samples.policy.skip:
            chosen = [*np.flatnonzero(self._unfit())[:MOST_CHECKED].tolist(), *chosen]
        pairs = [(train[place], lanes.samplings[lanes.lane_N[place]]) for place in chosen]
        pairs += [(self._held_out[place], self.sampling) for place in spread(len(self._held_out), MOST_CHECKED // 4)]
        self._probe(pairs)
        self._checked = True

    def train_dataloader(self) -> ClipLoader:
        """ClipBatches from `consumed_batches` on; its length counts the batches before them too."""
        rank, world = self._rank
        order = self.order(self.batch_size * world)
        batches = GlobalBatches(order, rank=rank, world=world, first=self.consumed_batches, total=self.max_batches)
        return ClipLoader(
            self.stream, batches, workers=self.workers, note=self._note, pin_memory=torch.cuda.is_available()
        )

    def held_out(self, limit: int) -> list[ClipBatch]:
        """Up to `limit` held-out clips, spread over them, each a batch of 1: from its first frame, never flipped.

        At the model's size, buckets or not. Where bad samples are skipped, the next good clip stands in.
        """
        with self._children() as child:
            batches = read_spread(self._held_out, limit, self.sampling, child, skip=self.bad_samples.policy.skip)
        if not batches:
            raise DataError("data.source: none of the held-out clips can be used", "see the warnings above")
        return batches

    def training(self, limit: int) -> list[ClipBatch]:
        """Likewise of training clips, each at the size that it is trained at; bad ones are left out."""
        lanes, train = self.stream.lanes, self.manifest.train
        videos = np.flatnonzero(~train.number("still"))
        batches: list[ClipBatch] = []
        with self._children() as child:
            for place in videos[spread(len(videos), limit)]:
                with suppress(DataError):  # the stream tells of those it meets
                    batches.append(read_fixed(train[place], lanes.samplings[lanes.lane_N[place]], child))
        return batches

    @contextmanager
    def _children(self) -> Iterator[DecodeChild | None]:
        child = self._child()
        try:
            yield child
        finally:
            if child:
                child.close()

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: the same on every rank."""
        return {
            "consumed_batches": self.consumed_batches,
            "clips_per_batch": self.batch_size * self._rank[1],
            "seed": self.seed,
            "dataset": self.manifest.fingerprint,
            "order": f"shuffle_shards={self.shuffle_shards} buckets={self.buckets}",
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was, on any number of ranks.

        DataError when the dataset (unless a change is allowed), the seed, the order or the global batch is another.
        """
        for change in self.changes(state_dict, self._rank[1]):
            log.warning("%s; the run goes on with it from batch %d", change, state_dict["consumed_batches"])
        self.consumed_batches = state_dict["consumed_batches"]

    def changes(self, before: Mapping[str, Any], world: int) -> list[str]:
        """What is another than it was, and may be; DataError, as on loading. world: ranks."""
        here = self.state_dict() | {"clips_per_batch": self.batch_size * world}
        return changes_of_place(before, here, world=world, allow_change=self.allow_change)

    def _child(self) -> DecodeChild | None:
        """A new one, which starts when it is first asked."""
        return DecodeChild(self.deadline) if self.deadline else None

    @property
    def _rank(self) -> tuple[int, int]:
        """(rank, ranks)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def _held_out(self) -> ClipTable:
        """Stills say nothing of a video model."""
        clips = self.manifest.held_out
        kept = clips if self.sampling.frames == 1 else clips.where(~clips.number("still"))
        if not len(kept):
            raise DataError("data.source: no videos are held out", "prepare the dataset again with more source videos")
        return kept

    def _note(self, loaded: Loaded) -> None:
        rank, world = self._rank
        batch = loaded.batch.positions_B[0] // (self.batch_size * world)
        good = len(loaded.batch.keys_B)
        self.bad_samples.count(good, loaded.bad, rank=rank, step=batch // self.batches_per_step + 1)

    def _unfit(self) -> np.ndarray:
        """bool [N]: training clips that, by their index, have too few frames or too low a rate."""
        clips, lanes = self.manifest.train, self.stream.lanes
        frames_N, fps_N = clips.number("frames"), clips.number("fps")
        wanted_N = np.array([sampling.frames for sampling in lanes.samplings])[lanes.lane_N]
        rate_N = fps_N if self.sampling.fps is None else np.full(len(clips), self.sampling.fps)
        with np.errstate(invalid="ignore"):
            short_N = (frames_N < wanted_N) | ((frames_N - 0.75) / fps_N < (wanted_N - 1) / rate_N)
            slow_N = (wanted_N > 1) & (rate_N > fps_N * 1.02)
        return (frames_N > 0) & ~clips.number("still") & (short_N | slow_N)

    def _probe(self, pairs: list[tuple[Clip, Sampling]]) -> None:
        bad: Counter[str] = Counter()
        last, child = None, self._child()
        for clip, sampling in pairs:
            if clip.still or not (clip.known or clip.shard.path.is_file()):
                continue  # nothing is fetched only to be looked at
            try:
                if sampling.captions:
                    clip.told(sampling.trigger)
                info = look_at(clip, b"" if clip.known else clip.read(), child)
                choose_times(info, sampling.frames, sampling.fps, 0.0, clip.name)
            except DataError as error:
                if not self.bad_samples.policy.skip:
                    raise
                bad[error.reason] += 1
                last = error
        if child:
            child.close()
        met = bad.total()
        if last and (met == len(pairs) or met > max(FEWEST_COUNTED, self.bad_samples.policy.most * len(pairs))):
            counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in bad.most_common())
            message = f"{len(pairs) - met} of {len(pairs)} clips are usable: {counts}; the last: {last.message}"
            raise DataError(message, last.hint)
