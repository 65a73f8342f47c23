"""What is wrong with a clip's pictures, in numbers: blurred, clipped, black, frozen, or framed by black bars."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

DARK = 16
"""Luma (0-255) that still counts as black after lossy coding."""
CLIPPED_LOW, CLIPPED_HIGH = 2, 253
MOST_SAMPLES = 8
SHARPNESS_SIDE = 512
THUMBNAIL = 64
STILL_LEVELS = 2.0
LEAST_PICTURE = 0.25
"""Of height and of width: where less would remain between bars, the footage itself is dark."""


@dataclass(frozen=True)
class Quality:
    """Measures of one clip, taken inside its black bars."""

    blur: float
    """Variance of the Laplacian of the grey picture (at most 512 pixels a side), median of frames: low is blurred."""
    exposure_clipped: float
    """Share of pixels in [0, 1] that are fully dark or fully bright."""
    black: float
    """Share of frames in [0, 1] that are black all over."""
    frozen: float
    """Share of steps in [0, 1] from a frame to the next that change nothing to be seen; 0 for a still."""
    letterbox: tuple[int, int, int, int]
    """Black bars in pixels: top, bottom, left, right."""


def measure(frames_THWC: np.ndarray) -> Quality:
    """Measures of a uint8 RGB clip [T, H, W, 3].

    `frozen` looks at every frame that is given, the rest at up to eight spread over the clip.
    """
    places = np.unique(np.linspace(0, len(frames_THWC) - 1, MOST_SAMPLES).round().astype(int))
    greys_SHW = np.stack([cv2.cvtColor(frames_THWC[place], cv2.COLOR_RGB2GRAY) for place in places])
    top, bottom, left, right = bars = _letterbox(greys_SHW)
    inside_SHW = greys_SHW[:, top : greys_SHW.shape[1] - bottom, left : greys_SHW.shape[2] - right]
    clipped = (inside_SHW <= CLIPPED_LOW) | (inside_SHW >= CLIPPED_HIGH)
    return Quality(
        blur=round(float(np.median([_sharpness(grey_HW) for grey_HW in inside_SHW])), 2),
        exposure_clipped=round(float(clipped.mean()), 4),
        black=round(float(np.mean([np.percentile(grey_HW, 98) <= DARK for grey_HW in inside_SHW])), 4),
        frozen=round(_frozen(frames_THWC), 4),
        letterbox=bars,
    )


def _letterbox(greys_SHW: np.ndarray) -> tuple[int, int, int, int]:
    """Rows and columns at the edges where, in every frame, 98 of 100 pixels are black."""
    brightest_HW = greys_SHW.max(axis=0)
    top, bottom = _dark_ends(np.percentile(brightest_HW, 98, axis=1))
    left, right = _dark_ends(np.percentile(brightest_HW[top : len(brightest_HW) - bottom], 98, axis=0))
    height, width = brightest_HW.shape
    if height - top - bottom < LEAST_PICTURE * height or width - left - right < LEAST_PICTURE * width:
        return 0, 0, 0, 0
    return top, bottom, left, right


def _dark_ends(profile: np.ndarray) -> tuple[int, int]:
    """How many values at the start and at the end are dark; (0, 0) when all are."""
    bright = np.flatnonzero(profile > DARK)
    return (int(bright[0]), int(len(profile) - 1 - bright[-1])) if len(bright) else (0, 0)


def _sharpness(grey_HW: np.ndarray) -> float:
    scale = SHARPNESS_SIDE / max(grey_HW.shape)
    if scale < 1:
        grey_HW = cv2.resize(grey_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey_HW, cv2.CV_64F).var())


def _frozen(frames_THWC: np.ndarray) -> float:
    """By thumbnails: averaging hides coding noise, and keeps a small thing that moves over a still ground."""
    height, width = frames_THWC.shape[1:3]
    size = min(width, THUMBNAIL), max(1, min(height, round(THUMBNAIL * height / width)))
    small_T = [cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA).astype(np.int16) for frame_HWC in frames_THWC]
    still = [np.abs(after - before).max() <= STILL_LEVELS for before, after in zip(small_T, small_T[1:], strict=False)]
    return float(np.mean(still)) if still else 0.0
