"""The base and adapters on the same inputs and seeds, as one video and as one contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.generation.sheets import contact_sheet, side_by_side, stacked, write_png
from svdtrain.generation.video_files import write_mp4

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Comparison:
    """Videos uint8 [T, H, W, 3], one of each kind per input."""

    truths: Sequence[np.ndarray]
    """The held-out clips, whose first frames the videos begin with."""
    videos: Mapping[str, Sequence[np.ndarray]]
    """By what made them."""
    fps: float

    def write_sheet(self, path: Path) -> None:
        """Rows per input: the held-out clip, then what each made of its first frame."""
        rows: list[tuple[str, np.ndarray]] = []
        for index, truth in enumerate(self.truths):
            rows += [("held-out clip", truth), *((label, made[index]) for label, made in self.videos.items())]
        write_png(path, contact_sheet(rows))

    def write_video(self, path: Path, *, loops: int = 4) -> None:
        """Per input: first frame and videos side by side; repeated, since clips are short."""
        rows = [
            side_by_side([("first frame", truth[0]), *((label, made[index]) for label, made in self.videos.items())])
            for index, truth in enumerate(self.truths)
        ]
        write_mp4(path, np.concatenate([stacked(rows)] * loops), self.fps, crf=18)
