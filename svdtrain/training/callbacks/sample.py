"""Sample videos on held-out first frames at fixed seeds, with the base's beside them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Callback

from svdtrain.foundation.out_of_memory import is_out_of_memory
from svdtrain.generation.comparison import Comparison
from svdtrain.generation.video_files import write_mp4

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy as np
    import pytorch_lightning as pl

    from svdtrain.families.protocol import Request
    from svdtrain.reporting.run_events import RunEvents
    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning


log = logging.getLogger(__name__)


class SampleVideos(Callback):
    """Step 0 is the base; every later look is shown beside it, and makes the run's before/after video.

    With averaged weights, those are what is shown; what the weights themselves make is beside it, as raw-N.mp4.
    """

    def __init__(
        self,
        run_dir: Path,
        requests: Sequence[Request],
        truths: Sequence[np.ndarray],
        every: int,
        average: WeightAverage,
        wanted: Collection[str],
        events: RunEvents,
    ) -> None:
        self.run_dir, self.truths, self.every = run_dir, truths, every
        self.requests: Sequence[Request] = requests
        self.average, self.wanted, self.events = average, wanted, events
        self.base_videos: list[np.ndarray] = []
        self.last_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """The base's videos; a resumed run takes them from the run folder's first look."""
        if trainer.global_step == 0:
            if self.requests and _samples(trainer, module):
                self.base_videos = self._sampled(module)
            if self.base_videos and trainer.is_global_zero:
                self._write(0, "input", self.base_videos)
                self.events.add("sample", 0)
        elif self.requests and not self.base_videos:
            if trainer.is_global_zero:
                log.warning("no sample videos: those of the base, of step 0, are not there to compare with")
            self.requests = ()

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """On the grid of steps, at the last, and when somebody asks."""
        step = trainer.global_step
        if not self.requests or step == self.last_step or not _samples(trainer, module):
            return
        if step % self.every == 0 or step == trainer.max_steps or "sample" in self.wanted:
            self.last_step = step
            with self.average.applied(module):
                videos = self._sampled(module)
            raw = self._sampled(module) if self.average.average else []
            if videos and trainer.is_global_zero:
                self._show(step, videos, raw)

    def _sampled(self, module: FineTuning) -> list[np.ndarray]:
        """None, from then on, where there is no memory for it: a run is worth more than a look at it."""
        try:
            return module.family.sample(self.requests)
        except Exception as error:
            if not is_out_of_memory(error) or module.sharded is not None:  # then other ranks wait for this one
                raise
        size = f"{self.requests[0].frames} frames of {self.requests[0].height} x {self.requests[0].width}"
        log.warning("no sample videos: the memory is too small for sampling %s; training goes on without", size)
        self.requests = ()
        torch.cuda.empty_cache()
        return []

    def _show(self, step: int, videos: list[np.ndarray], raw: list[np.ndarray]) -> None:
        folder = self._write(step, "input", videos)
        self._write(step, "raw", raw)
        shown = {"base": self.base_videos, "with adapter": videos}
        if raw:
            shown["not averaged"] = raw
        comparison = Comparison(self.truths, shown, self.requests[0].fps)
        for sheet in (folder / "contact_sheet.png", self.run_dir / "contact_sheet.png"):
            comparison.write_sheet(sheet)
        comparison.write_video(self.run_dir / "before_after.mp4")
        self.events.add("sample", step)

    def _write(self, step: int, name: str, videos: list[np.ndarray]) -> Path:
        folder = self.run_dir / "samples" / f"step-{step:06d}"
        for index, video in enumerate(videos):
            write_mp4(folder / f"{name}-{index}.mp4", video, self.requests[index].fps)
        return folder

    def state_dict(self) -> dict[str, Any]:
        """The base's videos travel with the checkpoint, so that a resumed run compares with the same ones."""
        return {"base_videos": [torch.from_numpy(video) for video in self.base_videos], "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored before on_train_start."""
        self.base_videos = [video.numpy() for video in state_dict["base_videos"]]
        self.last_step = state_dict["last_step"]


def _samples(trainer: pl.Trainer, module: FineTuning) -> bool:
    """The first rank does, and keeps the videos; the others where it needs their parts of the base."""
    return trainer.is_global_zero or module.sharded is not None
