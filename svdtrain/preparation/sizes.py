"""The size a clip gets: its bucket of a list, or its own size, shrunk; never enlarged here, always even."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Bucket = tuple[int, int, int]
"""Height, width, frames."""
Bars = tuple[int, int, int, int]
"""Pixels at top, bottom, left and right."""
SHAPE_STEP = 0.05
"""Buckets whose crop losses differ by less count as equally near in shape."""
LEAST_BAR = 0.02
"""Of the side: what is narrower is an edge, not a bar."""


@dataclass(frozen=True)
class Fit:
    """How a picture goes into a bucket: scaled until it covers it, then cropped."""

    bucket: Bucket
    scale: float
    """Above 1: the picture must be enlarged."""
    crop_loss: float
    """Share of the picture that is cropped away."""


def choose_bucket(
    height: int, width: int, frames: int, buckets: Sequence[Bucket], *, most_upscale: float, most_crop: float
) -> Fit | None:
    """The nearest bucket in shape, of equally near ones the largest, of these the longest that `frames` fill.

    None when each would enlarge the picture more than `most_upscale` times, lose more than `most_crop` of it, or is too
    long.
    """
    fits: list[Fit] = []
    for bucket in buckets:
        scale = max(bucket[0] / height, bucket[1] / width)
        loss = 1 - bucket[0] * bucket[1] / (height * width * scale**2)
        if bucket[2] <= frames and scale <= most_upscale and loss <= most_crop + 1e-9:
            fits.append(Fit(bucket, scale, round(max(0.0, loss), 4)))
    return min(
        fits,
        key=lambda fit: (round(fit.crop_loss / SHAPE_STEP), -fit.bucket[0] * fit.bucket[1], -fit.bucket[2], fit.bucket),
        default=None,
    )


def stored_size(height: int, width: int, bucket: Bucket | None, short_side: int | None) -> tuple[int, int]:
    """Even (height, width), aspect kept: what just covers the bucket, or has the short side; never larger than it is."""
    short = min(height, width)
    scale = max(bucket[0] / height, bucket[1] / width) if bucket else (short_side or short) / short
    if scale >= 1:
        return max(2, height // 2 * 2), max(2, width // 2 * 2)
    least = bucket[:2] if bucket else (2, 2)
    rows, columns = (max(low, round(side * scale)) for low, side in zip(least, (height, width), strict=True))
    return max(2, rows // 2 * 2), max(2, columns // 2 * 2)


def resized(picture_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]; a last odd row or column is cropped, all else is area averaging."""
    rows, columns = picture_HWC.shape[:2]
    if (rows // 2 * 2, columns // 2 * 2) == (height, width):
        return picture_HWC[:height, :width]
    return cv2.resize(np.ascontiguousarray(picture_HWC), (width, height), interpolation=cv2.INTER_AREA)


def bars_in_pairs(bars: Bars, height: int, width: int) -> Bars:
    """Only bars that stand on both sides alike: a dark sky or floor is no letterbox."""
    top, bottom = _paired(bars[0], bars[1], height)
    left, right = _paired(bars[2], bars[3], width)
    return top, bottom, left, right


def _paired(one: int, other: int, side: int) -> tuple[int, int]:
    alike = abs(one - other) <= max(4, 0.1 * max(one, other))
    return (one, other) if alike and min(one, other) >= LEAST_BAR * side else (0, 0)


def cropped(picture_HWC: np.ndarray, bars: Bars) -> np.ndarray:
    """A view of the picture without its bars."""
    height, width = picture_HWC.shape[:2]
    return picture_HWC[bars[0] : height - bars[1], bars[2] : width - bars[3]]
