"""What a video looks like: its first frame, its style, its colours over time, and how near it comes to a training frame."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

WIDEST = 256
"""Pictures are shrunk to it before their colours and edges are counted."""
QUANTILES = np.linspace(0.005, 0.995, 100)
THUMBNAIL = 16
"""Sides of the pictures by which frames are told apart, in pixels."""


def first_frame_similarity(frame_HWC: np.ndarray, picture_HWC: np.ndarray) -> float:
    """SSIM in [-1, 1] of a video's first frame and the picture that it was to begin with (uint8 RGB of one size).

    Wang et al. 2004, as torchmetrics has it: Gaussian windows of 11 pixels.
    """
    one, other = (torch.from_numpy(p.copy()).movedim(-1, 0)[None].double() / 255 for p in (frame_HWC, picture_HWC))
    return float(structural_similarity_index_measure(one, other, data_range=1.0))  # type: ignore[arg-type]


def style_distance(frames_THWC: np.ndarray, other_THWC: np.ndarray) -> float:
    """How differently lightness, two colours (CIE Lab) and strength of edges are spread, whatever is where; in % of lightness.

    Mean of the four one-dimensional Wasserstein distances between all pixels of two uint8 RGB videos.
    """
    return float(np.abs(_spread(frames_THWC) - _spread(other_THWC)).mean())


def _spread(frames_THWC: np.ndarray) -> np.ndarray:
    """[4, quantiles]."""
    shrunk = [_shrunk(frame_HWC) for frame_HWC in frames_THWC]
    lab_THWC = np.stack([cv2.cvtColor(frame_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame_HWC in shrunk])
    down_THW, across_THW = np.gradient(lab_THWC[..., 0], axis=(1, 2))
    channels = [*np.moveaxis(lab_THWC, -1, 0), np.hypot(down_THW, across_THW)]
    return np.stack([np.quantile(channel, QUANTILES) for channel in channels])


def _shrunk(frame_HWC: np.ndarray) -> np.ndarray:
    height, width = frame_HWC.shape[:2]
    if width <= WIDEST:
        return frame_HWC
    return cv2.resize(frame_HWC, (WIDEST, max(2, round(height * WIDEST / width))), interpolation=cv2.INTER_AREA)


def colour_drift(frames_THWC: np.ndarray) -> float:
    """How far the mean colour moves from the first frame to the last, in % of its range.

    Along the straight line that fits red, green and blue over time best, so that what swings back counts for little.
    """
    means_TC = frames_THWC.reshape(len(frames_THWC), -1, 3).mean(1) * (100 / 255)
    if len(means_TC) < 2:
        return 0.0
    slope_C = np.polyfit(np.arange(len(means_TC)), means_TC, 1)[0]
    return float(np.sqrt(np.square(slope_C * (len(means_TC) - 1)).mean()))


def thumbnails(frames_THWC: np.ndarray) -> np.ndarray:
    """uint8 [T, P]: frames as small pictures in a row each, 768 bytes a frame."""
    size = (THUMBNAIL, THUMBNAIL)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA).ravel() for f in frames_THWC])


def nearest_training_frame(small_TP: np.ndarray, training_MP: np.ndarray) -> float:
    """Mean distance of a video's frames after the first (which it was given) to the nearest training frame each.

    Root mean square over small pictures, in % of the range; 0 for a copy.
    """
    mine_TP, theirs_MP = small_TP[1:].astype(np.float32), training_MP.astype(np.float32)
    squares_TM = np.square(mine_TP).sum(1)[:, None] + np.square(theirs_MP).sum(1) - 2 * mine_TP @ theirs_MP.T
    nearest_T = np.sqrt(np.maximum(squares_TM.min(1), 0) / small_TP.shape[1])
    return 100 / 255 * float(nearest_T.mean())
