"""Windows are chosen by time; too short and too slow videos are refused with the numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from svdtrain.data.decoding import VideoInfo
from svdtrain.data.frames import choose_times
from svdtrain.foundation.errors import DataError


def info(pts: list[int], base: Fraction) -> VideoInfo:
    return VideoInfo("mov", "h264", 64, 64, tuple(pts), base, "")


def steady(frames: int, fps: int) -> VideoInfo:
    return info([n * 512 for n in range(frames)], Fraction(1, 512 * fps))


@pytest.mark.parametrize(
    ("video", "frames", "fps", "place", "indices", "start", "rate"),
    [
        (steady(8, 12), 8, None, 0.7, range(8), 0.0, 12),
        (steady(30, 24), 8, 24, 0.0, range(8), 0.0, 24),
        (steady(30, 24), 8, 24, 1.0, range(22, 30), 22 / 24, 24),
        (steady(9, 24), 8, 24, 0.5, range(1, 9), 1 / 24, 24),
        (steady(30, 24), 4, 8, 0.5, range(10, 22, 3), 10 / 24, 8),
        (steady(60, 30), 14, 7, 0.0, [0, 4, 9, 13, 17, 21, 26, 30, 34, 39, 43, 47, 51, 56], 0.0, 7),
        (steady(1, 25), 1, 7, 0.9, [0], 0.0, 7),
        (steady(30, 5), 1, 7, 0.5, [15], 3.0, 7),
        (info([33, 67, 100, 133], Fraction(1, 1000)), 4, 30, 0.9, range(4), 0.0, 30),
        (info([0, 10, 20, 30, 400, 800, 1200], Fraction(1, 1000)), 4, 2.5, 0.0, [0, 4, 5, 6], 0.0, 2.5),
    ],
)
def test_window(
    video: VideoInfo, frames: int, fps: float | None, place: float, indices: range, start: float, rate: float
) -> None:
    window = choose_times(video, frames, fps, place, "x")
    assert window.indices == tuple(indices)
    assert (window.start, window.fps) == pytest.approx((start, rate))


@pytest.mark.parametrize("fps", [7, 10.5, 24, None])
@pytest.mark.parametrize("frames", [2, 14, 25])
def test_every_window_keeps_its_rate_to_half_a_frame(fps: float | None, frames: int) -> None:
    video = steady(100, 24)
    starts = set()
    for place in np.linspace(0, 1, 300):
        window = choose_times(video, frames, fps, place, "x")
        moments = video.times_T[list(window.indices)] - window.start
        assert np.abs(moments - np.arange(frames) / (fps or 24)).max() <= 0.5 / 24 + 1e-9
        assert len(set(window.indices)) == frames
        starts.add(window.start)
    fitting = int((99 / 24 - (frames - 1) / (fps or 24)) * 24 + 1.25)
    assert len(starts) == fitting


@pytest.mark.parametrize(
    ("video", "frames", "fps", "message"),
    [
        (steady(36, 30), 14, 7, "x is too short: 14 frames at 7 fps take 1.86 s, it has 36 frames, 1.17 s"),
        (steady(5, 25), 8, None, "x is too short: 8 frames at 25 fps take 0.28 s, it has 5 frames, 0.16 s"),
        (steady(1, 25), 2, 7, "x is too short: 2 frames at 7 fps take 0.14 s, it has 1 frames, 0.00 s"),
        (steady(50, 5), 14, 7, "x has 5 fps, 7 are asked for: frames would repeat"),
    ],
)
def test_refused_with_numbers(video: VideoInfo, frames: int, fps: float | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        choose_times(video, frames, fps, 0.0, "x")
    assert caught.value.message == message
    assert caught.value.hint
    assert caught.value.reason == ("low_fps" if "would repeat" in message else "too_short")
