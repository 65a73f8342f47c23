"""Which frames of a video a training clip takes: by time, so that the stated frames per second are true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from svdtrain.data.decoding import VideoInfo


@dataclass(frozen=True)
class Window:
    """Frames of one video."""

    indices: tuple[int, ...]
    """Places in display order."""
    start: float
    """Seconds from the video's first frame to the window's."""
    fps: float
    """Frames per second at which they are taken."""


def choose_times(
    info: VideoInfo, frames: int, fps: float | None, place: float, name: str, windows: int | None = None
) -> Window:
    """The frames nearest to `frames` moments, 1/fps apart. fps None: the video's own (mean) rate.

    The window starts on one of the frames from which it fits into the video; place in [0, 1] says which. `windows`: on
    one of so many of them. DataError with the numbers when it fits nowhere, or when the video has fewer frames per
    second than asked: frames would repeat.
    """
    firsts_K = _firsts(info, frames, fps, name, windows)
    return _window(info, frames, fps, int(firsts_K[min(int(place * len(firsts_K)), len(firsts_K) - 1)]))


def all_windows(info: VideoInfo, frames: int, fps: float | None, name: str, windows: int | None = None) -> list[Window]:
    """Every window that `choose_times` may answer with, from the first on; as many places in [0, 1] lead to each."""
    return [_window(info, frames, fps, first) for first in _firsts(info, frames, fps, name, windows).tolist()]


def _firsts(info: VideoInfo, frames: int, fps: float | None, name: str, windows: int | None) -> np.ndarray:
    """The frames on which windows may start, ascending."""
    rate = fps or info.fps
    own = 1 / info.fps
    span = (frames - 1) / rate
    if info.frames < frames or info.duration + own / 4 < span:
        raise DataError(
            f"{name} is too short: {frames} frames at {rate:.4g} fps take {span:.2f} s, "
            f"it has {info.frames} frames, {info.duration:.2f} s",
            "remove it, or take fewer frames (model.frames) or a higher rate (data.fps)",
            "too_short",
        )
    if frames > 1 and rate > info.fps * 1.02:
        raise DataError(
            f"{name} has {info.fps:.4g} fps, {rate:.4g} are asked for: frames would repeat",
            f"set data.fps={info.fps:.4g} or lower, or data.fps=null for each clip's own rate",
            "low_fps",
        )
    starts = max(1, int(np.searchsorted(info.times_T, info.duration + own / 4 - span, side="right")))
    return np.linspace(0, starts - 1, min(starts, windows or starts)).round().astype(np.int64)


def _window(info: VideoInfo, frames: int, fps: float | None, first: int) -> Window:
    times_T, rate = info.times_T, fps or info.fps
    moments_T = times_T[first] + np.arange(frames) / rate
    after_T = np.searchsorted(times_T, moments_T).clip(0, info.frames - 1)
    before_T = np.maximum(after_T - 1, 0)
    indices_T = np.where(moments_T - times_T[before_T] <= times_T[after_T] - moments_T, before_T, after_T)
    return Window(tuple(indices_T.tolist()), float(times_T[first]), rate)
