"""Sample videos on held-out first frames at fixed seeds, with the base's beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

from svdtrain.generation.comparison import Comparison
from svdtrain.generation.video_files import write_mp4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pytorch_lightning as pl

    from svdtrain.families.protocol import Request
    from svdtrain.training.callbacks.average import WeightAverage
    from svdtrain.training.module import FineTuning


class SampleVideos(Callback):
    """Step 0 is the base; every later look is shown beside it. The last one makes the run's before/after video."""

    def __init__(
        self,
        run_dir: Path,
        requests: Sequence[Request],
        truths: Sequence[np.ndarray],
        every: int,
        average: WeightAverage,
    ) -> None:
        self.run_dir, self.requests, self.truths, self.every = run_dir, requests, truths, every
        self.average = average
        self.base_videos: list[np.ndarray] = []
        self.last_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """The base's videos; a resumed run takes them from the run folder's first look."""
        if self.requests and _samples(trainer, module) and trainer.global_step == 0:
            self.base_videos = module.family.sample(self.requests)
            if not trainer.is_global_zero:
                return
            for index, (request, video) in enumerate(zip(self.requests, self.base_videos, strict=True)):
                write_mp4(self.run_dir / "samples" / "step-000000" / f"input-{index}.mp4", video, request.fps)

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        """On the grid of steps, and at the last."""
        step = trainer.global_step
        if not self.requests or step == self.last_step or not _samples(trainer, module):
            return
        if step % self.every == 0 or step == trainer.max_steps:
            self.last_step = step
            with self.average.applied(module):
                videos = module.family.sample(self.requests)
            if not trainer.is_global_zero:
                return
            shown = {"base": self.base_videos, "with adapter": videos}
            comparison = Comparison(self.truths, shown, self.requests[0].fps)
            folder = self.run_dir / "samples" / f"step-{step:06d}"
            for index, (request, video) in enumerate(zip(self.requests, videos, strict=True)):
                write_mp4(folder / f"input-{index}.mp4", video, request.fps)
            comparison.write_sheet(folder / "contact_sheet.png")
            if step == trainer.max_steps:
                comparison.write_sheet(self.run_dir / "contact_sheet.png")
                comparison.write_video(self.run_dir / "before_after.mp4")

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
