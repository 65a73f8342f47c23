"""Sample videos on held-out first frames at fixed seeds, with the base's beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

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
        self.run_dir, self.requests, self.truths, self.every = run_dir, requests, truths, every
        self.average, self.wanted, self.events = average, wanted, events
        self.base_videos: list[np.ndarray] = []
        self.last_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """The base's videos; a resumed run takes them from the run folder's first look."""
        if self.requests and _samples(trainer, module) and trainer.global_step == 0:
            self.base_videos = module.family.sample(self.requests)
            if not trainer.is_global_zero:
                return
            self._write(0, "input", self.base_videos)
            self.events.add("sample", 0)

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """On the grid of steps, at the last, and when somebody asks."""
        step = trainer.global_step
        if not self.requests or step == self.last_step or not _samples(trainer, module):
            return
        if step % self.every == 0 or step == trainer.max_steps or "sample" in self.wanted:
            self.last_step = step
            with self.average.applied(module):
                videos = module.family.sample(self.requests)
            raw = module.family.sample(self.requests) if self.average.average else []
            if trainer.is_global_zero:
                self._show(step, videos, raw)

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
        import torch

        return {"base_videos": [torch.from_numpy(video) for video in self.base_videos], "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restored before on_train_start."""
        self.base_videos = [video.numpy() for video in state_dict["base_videos"]]
        self.last_step = state_dict["last_step"]


def _samples(trainer: pl.Trainer, module: FineTuning) -> bool:
    """The first rank does, and keeps the videos; the others where it needs their parts of the base."""
    return trainer.is_global_zero or module.sharded is not None
