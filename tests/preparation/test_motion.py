"""Motion: the score is the true speed of a sliding picture, and bucket ids keep the order of the scores."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from svdtrain.preparation.motion import bucket_ids, motion_score


def sliding(frames: int, pixels_per_frame: float, *, height: int = 144, width: int = 256) -> np.ndarray:
    """uint8 [T, H, W, 3]: a soft random texture that moves to the right."""
    rough = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    texture_HW = cv2.normalize(cv2.GaussianBlur(rough, (0, 0), 4), np.empty(0), 0, 255, cv2.NORM_MINMAX)
    shifts = [np.array([[1, 0, pixels_per_frame * time], [0, 1, 0]], np.float32) for time in range(frames)]
    moved = [cv2.warpAffine(texture_HW, s, (width, height), borderMode=cv2.BORDER_WRAP) for s in shifts]
    return np.repeat(np.stack(moved)[..., None], 3, axis=3)


@pytest.mark.parametrize(
    ("fps", "pixels_per_frame", "percent_per_second"),
    [(4, 2.56, 4.0), (8, 1.28, 4.0), (24, 0.5, 100 * 12 / 256), (4, 0.0, 0.0), (2, 5.12, 4.0)],
)
def test_the_score_is_the_speed(fps: float, pixels_per_frame: float, percent_per_second: float) -> None:
    frames_THWC = sliding(int(2 * fps) + 1, pixels_per_frame)
    assert motion_score(frames_THWC, fps) == pytest.approx(percent_per_second, rel=0.15, abs=0.02)


def test_the_size_of_the_picture_does_not_matter() -> None:
    small_THWC = sliding(9, 2.0)
    large_THWC = small_THWC.repeat(3, axis=1).repeat(3, axis=2)
    assert motion_score(large_THWC, 8) == pytest.approx(motion_score(small_THWC, 8), rel=0.1)


@pytest.mark.parametrize("frames", [2, 3])
def test_a_clip_shorter_than_a_quarter_second_is_measured_from_first_to_last(frames: int) -> None:
    assert motion_score(sliding(frames, 1.0), 24) == pytest.approx(100 * 24 / 256, rel=0.15)


def test_a_still_and_a_narrow_strip_have_scores() -> None:
    assert motion_score(sliding(1, 0.0), 24) == 0.0
    assert motion_score(np.zeros((5, 2, 400, 3), np.uint8), 8) == 0.0


@pytest.mark.parametrize(
    ("scores", "ids"),
    [
        ([], []),
        ([3.5], [127]),
        ([2.0, 2.0, 2.0], [127, 127, 127]),
        ([0.1, 9.0], [1, 255]),
        ([5.0, 0.0, 1.0], [255, 1, 127]),
        ([0.0, 1.0, 2.0, 3.0, 4.0], [1, 64, 127, 191, 255]),
        ([1.0, 1.0, 5.0, 5.0], [43, 43, 212, 212]),
    ],
)
def test_bucket_ids_of_known_scores(scores: list[float], ids: list[int]) -> None:
    assert bucket_ids(scores) == ids


def test_bucket_ids_keep_the_order_and_depend_on_ranks_alone() -> None:
    scores = np.random.default_rng(0).lognormal(0, 2, 1001)
    ids = np.array(bucket_ids(scores.tolist()))
    assert (np.diff(ids[np.argsort(scores)]) >= 0).all()
    assert (ids.min(), int(np.median(ids)), ids.max()) == (1, 127, 255)
    assert ids[np.argsort(scores)[500]] == 127
    assert ids.tolist() == bucket_ids(np.log(scores).tolist())
