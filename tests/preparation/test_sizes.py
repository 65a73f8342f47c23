"""Clips go into the nearest bucket, are never enlarged in the file, and lose no more than was allowed."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.preparation.sizes import bars_in_pairs, choose_bucket, cropped, resized, stored_size

BUCKETS = [(576, 1024, 25), (576, 1024, 14), (320, 576, 14), (1024, 576, 14), (512, 512, 14)]


@pytest.mark.parametrize(
    ("height", "width", "frames", "upscale", "crop", "expected"),
    [
        (1080, 1920, 96, 1.0, 0.25, (576, 1024, 25)),
        (1080, 1920, 20, 1.0, 0.25, (576, 1024, 14)),
        (1080, 1920, 13, 1.0, 0.25, None),
        (360, 640, 96, 1.0, 0.25, (320, 576, 14)),
        (360, 640, 96, 1.6, 0.25, (576, 1024, 25)),
        (1920, 1080, 96, 1.0, 0.25, (1024, 576, 14)),
        (600, 620, 96, 1.0, 0.25, (512, 512, 14)),
        (480, 640, 96, 1.0, 0.26, (320, 576, 14)),
        (480, 640, 96, 1.0, 0.2, None),
        (200, 300, 96, 1.0, 0.5, None),
    ],
)
def test_buckets(
    height: int, width: int, frames: int, upscale: float, crop: float, expected: tuple[int, int, int] | None
) -> None:
    fit = choose_bucket(height, width, frames, BUCKETS, most_upscale=upscale, most_crop=crop)
    assert (fit.bucket if fit else None) == expected
    if fit:
        rows, columns = stored_size(height, width, fit.bucket, None)
        assert rows <= height
        assert columns <= width
        assert rows % 2 == columns % 2 == 0
        if fit.scale <= 1:
            assert rows >= fit.bucket[0]
            assert columns >= fit.bucket[1]
            assert min(rows - fit.bucket[0], columns - fit.bucket[1]) <= 1
        kept = fit.bucket[0] * fit.bucket[1] / (height * width * fit.scale**2)
        assert fit.crop_loss == pytest.approx(1 - kept, abs=1e-3)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((1080, 1920), 320, (320, 568)), ((101, 77), None, (100, 76)), ((200, 100), 400, (200, 100)), ((3, 2), 2, (2, 2))],
)
def test_short_side(size: tuple[int, int], short_side: int | None, expected: tuple[int, int]) -> None:
    assert stored_size(*size, None, short_side) == expected


def test_a_picture_of_the_right_size_keeps_its_bits() -> None:
    picture_HWC = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    assert (resized(picture_HWC, 32, 46) == picture_HWC[:32, :46]).all()
    assert resized(picture_HWC, 16, 22).shape == (16, 22, 3)


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ((60, 60, 0, 0), (60, 60, 0, 0)),
        ((0, 0, 80, 83), (0, 0, 80, 83)),
        ((60, 0, 0, 0), (0, 0, 0, 0)),
        ((60, 100, 0, 0), (0, 0, 0, 0)),
        ((2, 2, 1, 1), (0, 0, 0, 0)),
    ],
)
def test_bars_come_in_pairs(bars: tuple[int, int, int, int], expected: tuple[int, int, int, int]) -> None:
    assert bars_in_pairs(bars, 480, 640) == expected
    assert cropped(np.zeros((480, 640, 3)), expected).shape[:2] == (
        480 - expected[0] - expected[1],
        640 - expected[2] - expected[3],
    )
