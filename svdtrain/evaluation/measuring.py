"""Videos measured one at a time: of each only numbers stay, and a few embeddings, so that memory does not grow with frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from svdtrain.evaluation.appearance import thumbnails
from svdtrain.evaluation.embeddings import KEPT, normalised
from svdtrain.evaluation.metrics import CMMD, metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from svdtrain.evaluation.metrics import Footage
    from svdtrain.families.protocol import ModelFamily

AT_ONCE = 8
"""Frames that are embedded together."""
BANK = 65_536
"""Training frames that are kept to compare with, at most: 48 MB of small pictures."""


class Measures(NamedTuple):
    """What stays of a video."""

    values: dict[str, float | None]
    """By metric."""
    embeddings_KD: np.ndarray
    """fp32, of a few frames, each of length 1; empty where nothing embeds them."""

    def told(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "values": self.values,
            "embeddings_KD": [[round(x, 6) for x in row] for row in self.embeddings_KD.tolist()],
        }


@torch.no_grad()
def embedded(family: ModelFamily, frames_THWC: np.ndarray) -> np.ndarray | None:
    """fp32 [T, D] of uint8 RGB frames by the family's image encoder; None where it has none."""
    if not family.spec.embeds_images:
        return None
    device = next(family.denoiser.parameters()).device
    pixels_TCHW = torch.from_numpy(frames_THWC.copy()).movedim(-1, 1)
    parts = [
        family.embed_images(part.to(device).float() / 127.5 - 1)[:, 0].cpu() for part in pixels_TCHW.split(AT_ONCE)
    ]
    return torch.cat(parts).float().numpy()


def measured(video: Footage, clip: Footage, names: Sequence[str]) -> Measures:
    """A video beside the held-out clip that it should resemble (a clip beside itself)."""
    own = video is clip
    values: dict[str, float | None] = {}
    for one in (metric(name) for name in names if name != CMMD):
        number = one.measure(video, clip) if one.of_clips or not own else None
        values[one.name] = None if number is None else round(float(number), 6)
    if video.embeddings_TD is None or CMMD not in names:
        return Measures(values, np.empty((0, 0), np.float32))
    chosen = np.linspace(0, len(video.embeddings_TD) - 1, KEPT).round().astype(int)
    return Measures(values, normalised(video.embeddings_TD[chosen]).astype(np.float32))


def bank_of(videos: Iterable[np.ndarray]) -> np.ndarray:
    """Thumbnails of training videos' frames, to find copies by."""
    rows: list[np.ndarray] = []
    for frames_THWC in videos:
        if sum(map(len, rows)) >= BANK:
            break
        rows.append(thumbnails(frames_THWC))
    return np.concatenate(rows) if rows else np.empty((0, 0), np.uint8)
