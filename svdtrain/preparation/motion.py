"""How much a clip moves, by dense optical flow, and the motion bucket ids that a dataset's scores become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 256
SAMPLES_PER_SECOND = 4
LEAST_HEIGHT = 32
MEDIAN_ID, LARGEST_ID = 127, 255


def motion_score(frames_THWC: np.ndarray, fps: float) -> float:
    """Mean length of DIS optical flow of a uint8 RGB clip [T, H, W, 3], in % of its width per second.

    Measured in grey at 256 pixels of width, between frames about a quarter of a second apart (the first and the last of
    a clip shorter than that). 0 for a single frame.
    """
    assert fps > 0
    step = max(1, min(round(fps / SAMPLES_PER_SECOND), len(frames_THWC) - 1))
    greys = [small_grey(frame_HWC) for frame_HWC in frames_THWC[::step]]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths = [
        float(np.linalg.norm(flow.calc(before, after, np.empty(0)), axis=-1).mean())
        for before, after in zip(greys, greys[1:], strict=False)
    ]
    return round(100 * float(np.mean(lengths)) / WIDTH * fps / step, 4) if lengths else 0.0


def bucket_ids(scores: Sequence[float]) -> list[int]:
    """Motion bucket ids in [1, 255] for the scores of a dataset: greater scores never get smaller ids, equal ones equal.

    With p = (clips below + half of the other clips that are equal) / (clips - 1), the clip's percentile in [0, 1], the
    id is 1 + 252 p up to the median and 127 + 256 (p - 1/2) above it, rounded half to even: 1 for the least, 127 at the
    median, 255 for the greatest. A dataset of one clip, or of equal scores, has 127 throughout.
    """
    values = np.asarray(scores, np.float64)
    assert np.isfinite(values).all()
    if len(values) < 2:
        return [MEDIAN_ID] * len(values)
    ordered = np.sort(values)
    below, not_above = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    percentile = (below + (not_above - below - 1) / 2) / (len(values) - 1)
    lower = 1 + 2 * (MEDIAN_ID - 1) * percentile
    upper = MEDIAN_ID + 2 * (LARGEST_ID - MEDIAN_ID) * (percentile - 0.5)
    return np.rint(np.where(percentile <= 0.5, lower, upper)).astype(int).tolist()


def small_grey(frame_HWC: np.ndarray) -> np.ndarray:
    """uint8 [h, 256] of a uint8 RGB frame, at least 32 high: what flow is measured on."""
    height, width = frame_HWC.shape[:2]
    size = WIDTH, max(LEAST_HEIGHT, round(height * WIDTH / width))
    way = cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR
    return cv2.resize(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY), size, interpolation=way)
