"""The data of a run: training batches that can be resumed, and held-out clips."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from svdtrain.data.decoding import probe
from svdtrain.data.frames import choose_times
from svdtrain.data.manifest import Manifest, Summary, read_manifest
from svdtrain.data.stream import (
    ClipLoader,
    ClipStream,
    GlobalBatches,
    Sampling,
    collate,
    ignore_signals,
    load_item,
    to_batch,
)
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from svdtrain.data.clip import Clip
    from svdtrain.types import ClipBatch

MOST_CHECKED = 256


class ClipDataModule(pl.LightningDataModule):
    """Clips of a dataset for a Trainer made with use_distributed_sampler=False.

    The run's place in the data is one integer, `consumed_batches`: the training loop adds one after each batch it has
    used (the loader runs ahead of it and cannot know).
    """

    def __init__(
        self,
        source: str | list[str],
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
    ) -> None:
        """batch_size clips per rank; fps None: each clip's own; motion_bucket None: what each clip's metadata says.

        max_batches: how many batches a run hands out in all, before and after resuming.
        """
        super().__init__()
        self.source, self.seed, self.horizontal_flip = source, seed, horizontal_flip
        self.sampling = Sampling(frames, height, width, fps, motion_bucket)
        self.batch_size, self.workers, self.max_batches = batch_size, workers, max_batches
        self.consumed_batches = 0
        self._checked = False

    @cached_property
    def manifest(self) -> Manifest:
        """Indexed once, when it is first asked for."""
        return read_manifest(self.source)

    @cached_property
    def stream(self) -> ClipStream:
        """The training clips by global position."""
        return ClipStream(
            self.manifest.train, self.sampling, self.seed, flip=self.horizontal_flip, workers=self.workers
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
        """Demux up to 256 clips, spread over the dataset. DataError when one is too short, too slow or no video."""
        clips = self.manifest.train + self.manifest.held_out
        for clip in _spread(clips, MOST_CHECKED):
            choose_times(probe(clip.read(), clip.name), self.sampling.frames, self.sampling.fps, 0.0, clip.name)
        self._checked = True

    def train_dataloader(self) -> ClipLoader:
        """ClipBatches from `consumed_batches` on; its length counts the batches before them too."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = GlobalBatches(
            self.batch_size, rank=rank, world=world, first=self.consumed_batches, total=self.max_batches
        )
        return ClipLoader(
            self.stream,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            worker_init_fn=ignore_signals,
            pin_memory=torch.cuda.is_available(),
        )

    def held_out(self, limit: int) -> list[ClipBatch]:
        """Up to `limit` held-out clips, spread over them, each a batch of 1: from its first frame, never flipped."""
        chosen = _spread(self.manifest.held_out, limit)
        return [to_batch([load_item(clip, self.sampling, position)]) for position, clip in enumerate(chosen)]

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: the same on every rank."""
        world = self.trainer.world_size if self.trainer else 1
        return {
            "consumed_batches": self.consumed_batches,
            "clips_per_batch": self.batch_size * world,
            "seed": self.seed,
            "dataset": self.manifest.fingerprint,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was. DataError when the dataset, the seed or the global batch is another."""
        here = self.state_dict()
        keys = {"dataset": "the dataset of data.source", "seed": "seed", "clips_per_batch": "data.batch_size x devices"}
        for field, what in keys.items():
            if state_dict[field] != here[field]:
                raise DataError(
                    f"the run cannot go on: {what} was {state_dict[field]}, now it is {here[field]}",
                    "resume with what the run began with, or start a new run",
                )
        self.consumed_batches = state_dict["consumed_batches"]


def _spread(clips: tuple[Clip, ...], limit: int) -> list[Clip]:
    count = min(limit, len(clips))
    return [clips[index * len(clips) // count] for index in range(count)]
