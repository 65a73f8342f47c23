"""Frames of an encoded video, exact or refused."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from svdtrain.data.packets import HINT, LARGEST_PICTURE, VideoInfo, opened, probe, verified_info
from svdtrain.data.readers import LARGEST_CLIP, Pictures, by_decoding_all, by_decord, by_seeking, frames_in_order
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

__all__ = [
    "HINT",
    "LARGEST_CLIP",
    "LARGEST_PICTURE",
    "VideoInfo",
    "by_decord",
    "decode_frames",
    "every_frame",
    "probe",
    "verified_info",
]


def decode_frames(
    data: bytes,
    indices: Sequence[int],
    name: str,
    info: VideoInfo | None = None,
    *,
    size: tuple[int, int] | None = None,
    reader: Literal["pyav", "decord"] = "pyav",
) -> np.ndarray:
    """Frames by their place in display order: uint8 RGB [T, H, W, 3], upright.

    info saves a second probe; with `verified_info` there is no first one either, unless the clip is not what its index
    says. size (height, width) has them resized while they are decoded, whatever their aspect. Both readers give the
    same bits. PyAV is the default: it takes less time (scripts/benchmarks/results/decoding.json), and tells damage.
    decord is asked only where no doubt stands against it. DataError when a frame cannot be decoded without damage.
    """
    info = info or probe(data, name)
    assert indices
    assert all(0 <= index < info.frames for index in indices), (name, list(indices), info.frames)
    frames_THWC = None
    if reader == "decord" and not info.doubt:
        frames_THWC = by_decord(data, indices, info, size)
    if frames_THWC is None and (info.verified or _skips_frames(indices, info)):
        frames_THWC = by_seeking(data, indices, info, name, size)
    if frames_THWC is None and info.verified:
        return decode_frames(data, indices, name, _probe_again(data, info, name), size=size)
    return by_decoding_all(data, indices, info, name, size) if frames_THWC is None else frames_THWC


def every_frame(data: bytes, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """(pts, uint8 RGB [H, W, 3]) of each frame from the first, upright, in display order. DataError on any damage."""
    with opened(data, name) as (container, stream):
        pictures = Pictures(stream, None, name)
        for pts, frame in frames_in_order(container, stream, name):
            yield pts, pictures.picture(frame)


def _skips_frames(indices: Sequence[int], info: VideoInfo) -> bool:
    """Whether a key frame after the first stands before one of them."""
    return bisect_right(info.keys, info.pts[max(indices)]) > 1


def _probe_again(data: bytes, info: VideoInfo, name: str) -> VideoInfo:
    found = probe(data, name)
    if found.frames != info.frames:
        message = f"{name} has {found.frames} frames, its index says {info.frames}"
        raise DataError(message, "prepare the dataset again", "damaged")
    return found
