"""Decoded samples of a dataset: the first, middle and last frame of a clip, and measures where an index has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.data.stills import decode_still
from svdtrain.preparation.duplicates import signature
from svdtrain.preparation.motion import SAMPLES_PER_SECOND, motion_score
from svdtrain.preparation.quality import measure

if TYPE_CHECKING:
    from svdtrain.data.isolation import DecodeChild
    from svdtrain.preparation.survey import Row

MOST_FRAMES = 32
"""Decoded to measure a clip: eight seconds."""
HEIGHT = 128


@dataclass(frozen=True)
class Look:
    """What was seen of one clip."""

    row: Row
    frames_THWC: np.ndarray
    """uint8 RGB, the first, middle and last frame (one of a still), at most 128 pixels high."""
    scores: dict[str, float]
    """The index's, or what was measured here."""
    signature: tuple[int, ...]
    """For near duplicates; empty for a glance."""


def look(row: Row, child: DecodeChild | None = None) -> Look:
    """Decode a clip's first, middle and last frame, or as many as measuring takes where the index has no scores.

    What nobody has verified is decoded in `child`, where there is one. DataError when it cannot be decoded.
    """
    data = row.place.read()
    if row.still:
        frames_THWC, rate = decode_still(data, row.key), 1.0
    else:
        child = None if row.verified else child
        info = child.probe(data, row.key) if child else probe(data, row.key)
        step = max(1, round(info.fps / SAMPLES_PER_SECOND))
        ends = [0, (info.frames - 1) // 2, info.frames - 1]
        places = ends if row.scores else list(range(0, info.frames, step))[:MOST_FRAMES]
        frames_THWC = (child.decode_frames if child else decode_frames)(data, places, row.key, info)
        rate = info.fps / step
    scores = row.scores or _measured(frames_THWC, rate)
    last = len(frames_THWC) - 1
    shown = frames_THWC[[0, last // 2, last]] if last else frames_THWC
    return Look(row, _small(shown), scores, signature(frames_THWC))


def glance(row: Row, child: DecodeChild | None = None) -> Look:
    """The first frame of a file of any length. DataError when it cannot be decoded."""
    data = row.place.read()
    decode = child.decode_frames if child else decode_frames
    frames_THWC = decode_still(data, row.key) if row.still else decode(data, [0], row.key)
    return Look(row, _small(frames_THWC), {}, ())


def _measured(frames_THWC: np.ndarray, rate: float) -> dict[str, float]:
    quality = measure(frames_THWC)
    scores = {"blur": quality.blur, "exposure_clipped": quality.exposure_clipped, "black": quality.black}
    if len(frames_THWC) == 1:
        return scores
    return {"motion": motion_score(frames_THWC, rate), **scores, "frozen": quality.frozen}


def _small(frames_THWC: np.ndarray) -> np.ndarray:
    height, width = frames_THWC.shape[1:3]
    if height <= HEIGHT:
        return frames_THWC
    size = max(1, round(width * HEIGHT / height)), HEIGHT
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames_THWC])
