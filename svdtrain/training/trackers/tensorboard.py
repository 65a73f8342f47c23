"""TensorBoard event files in the run folder: numbers, settings, alerts, and frames of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from svdtrain.data.decoding import every_frame
from svdtrain.generation.sheets import contact_sheet
from svdtrain.training.trackers.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from svdtrain.training.trackers.tracker import Look


class TensorBoardTracker(Tracker):
    """RUN/tensorboard."""

    kind = "tensorboard"

    def __init__(self, run_dir: Path) -> None:
        """Raises ModuleNotFoundError where tensorboard is not installed."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))
        self.step = 0

    def start(self, settings: Mapping[str, Any]) -> None:
        """The settings as text."""
        self.writer.add_text("config", f"```\n{yaml.safe_dump(dict(settings), sort_keys=False)}```", 0)

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        """One curve each."""
        self.step = step
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def look(self, look: Look) -> None:
        """A sheet of frames for each input: videos it could only show as GIFs."""
        for one in look.inputs:
            titled = {"held-out clip": one.truth, "base": one.base, "with adapter": one.adapter}
            rows = [(title, _frames(path)) for title, path in titled.items() if path and path.exists()]
            self.writer.add_image(f"samples/{one.name}", contact_sheet(rows), look.step, dataformats="HWC")

    def alert(self, title: str, text: str) -> None:
        """As text."""
        self.writer.add_text(f"alert/{title}", text, self.step)

    def end(self, state: str, looks: Sequence[Look]) -> None:  # noqa: ARG002
        """Write what is left."""
        self.writer.close()


def _frames(path: Path) -> np.ndarray:
    return np.stack([frame for _, frame in every_frame(path.read_bytes(), path.name)])
