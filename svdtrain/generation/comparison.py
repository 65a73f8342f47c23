"""The base and an adapter on the same inputs and seeds, as one video and as one contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.generation.sheets import contact_sheet, side_by_side, stacked, write_png
from svdtrain.generation.video_files import write_mp4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from svdtrain.families.protocol import Request


@dataclass(frozen=True)
class Comparison:
    """Videos uint8 [T, H, W, 3], one of each kind per request."""

    requests: Sequence[Request]
    truths: Sequence[np.ndarray]
    base: Sequence[np.ndarray]
    adapted: Sequence[np.ndarray]

    def write_sheet(self, path: Path) -> None:
        """Three rows per input: the held-out clip, the base, the adapter."""
        rows = []
        for truth, base, adapted in zip(self.truths, self.base, self.adapted, strict=True):
            rows += [("held-out clip", truth), ("base", base), ("with adapter", adapted)]
        write_png(path, contact_sheet(rows))

    def write_video(self, path: Path, *, loops: int = 4) -> None:
        """Per input: first frame, base and adapter side by side; repeated, since clips are short."""
        rows = []
        for request, truth, base, adapted in zip(self.requests, self.truths, self.base, self.adapted, strict=True):
            first = np.asarray(request.image) if request.image is not None else truth[0]
            rows.append(side_by_side([("first frame", first), ("base", base), ("with adapter", adapted)]))
        video = np.concatenate([stacked(rows)] * loops)
        write_mp4(path, video, self.requests[0].fps, crf=18)
