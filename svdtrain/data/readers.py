"""The two readers: PyAV, exact or refusing, and decord, a witness for clips that are clean."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from av import VideoFrame
from av.filter import Graph

from svdtrain.data.packets import HINT, VideoInfo, opened
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from av.container import InputContainer
    from av.video.stream import VideoStream

LARGEST_CLIP = 1 << 30
"""Bytes of RGB pixels that one call may give."""
Size = tuple[int, int]
"""(height, width)."""


class Pictures:
    """The frames of one video as uint8 RGB [H, W, 3], upright, all of one size."""

    def __init__(self, stream: VideoStream, size: Size | None, name: str) -> None:
        """size (height, width) of the upright picture; None: as it is."""
        self._stream, self._size, self._name = stream, size, name
        self._first: tuple[int, int, str] | None = None
        self._graph: Graph | None = None

    def picture(self, frame: VideoFrame) -> np.ndarray:
        """One frame. DataError when its size differs from the first one's."""
        form = frame.width, frame.height, frame.format.name
        if self._first is None:
            self._first = form
            self._graph = self._scaler(frame)
        if form[:2] != self._first[:2]:
            raise DataError(f"{self._name} changes its picture size at {frame.time} s", HINT, "damaged")
        quarters = round(frame.rotation / 90)
        if self._graph is not None:
            self._graph.push(frame)
            scaled = self._graph.pull()
            assert isinstance(scaled, VideoFrame)
            frame = scaled
        return np.rot90(frame.to_ndarray(format="rgb24", threads=1), quarters)

    def _scaler(self, frame: VideoFrame) -> Graph | None:
        """decord's own filter: bilinear, wide enough to average where it shrinks; equal to it bit for bit."""
        if self._size is None:
            return None
        height, width = self._size[::-1] if round(frame.rotation / 90) % 2 else self._size
        if (height, width) == (frame.height, frame.width):
            return None
        graph = Graph()
        graph.threads = 1
        steps = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
            ),
            graph.add("scale", f"{width}:{height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*steps).configure()
        return graph


def frames_in_order(container: InputContainer, stream: VideoStream, name: str) -> Iterator[tuple[int, VideoFrame]]:
    """(pts, frame) of each frame in display order. DataError on any damage."""
    last: int | None = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise DataError(f"{name} is damaged: a packet at {last} x {stream.time_base} s is torn", HINT, "damaged")
        for frame in packet.decode():
            if frame.is_corrupt or frame.pts is None:
                message = f"{name} is damaged: the frame at {frame.time} s does not decode cleanly"
                raise DataError(message, HINT, "damaged")
            if last is not None and frame.pts <= last:
                raise DataError(f"{name} has wrong timestamps: {frame.pts} follows {last}", HINT, "damaged")
            last = frame.pts
            yield last, frame


def by_seeking(data: bytes, indices: Sequence[int], info: VideoInfo, name: str, size: Size | None) -> np.ndarray | None:
    """Frames matched by their timestamps, each group of pictures from its key frame on: uint8 RGB [T, H, W, 3].

    None when a frame is not where a seek should find it, or does not decode cleanly from there.
    """
    try:
        with opened(data, name) as (container, stream):
            pts = _verified_times(stream, info) if info.verified else info.pts
            places = _places(pts, indices)
            jumps = [(min(places), max(places))] if info.verified else _jumps(sorted(places), info.keys)
            frames = _after_jumps(container, stream, jumps, info.keys)
            return _gather(frames, places, _pictures(stream, size, len(indices), name))
    except DataError:
        return None


def by_decoding_all(data: bytes, indices: Sequence[int], info: VideoInfo, name: str, size: Size | None) -> np.ndarray:
    """The same from the first frame on, which needs no key frame to be one. DataError on any damage up to the last."""
    with opened(data, name) as (container, stream):
        places = _places(info.pts, indices)
        pictures = _pictures(stream, size, len(indices), name)
        frames_THWC = _gather(frames_in_order(container, stream, name), places, pictures)
    if frames_THWC is None:
        raise DataError(f"{name} is damaged: some of its {info.frames} frames cannot be decoded", HINT, "damaged")
    return frames_THWC


def _pictures(stream: VideoStream, size: Size | None, frames: int, name: str) -> Pictures:
    height, width = size or (stream.codec_context.height, stream.codec_context.width)
    if (count := frames * height * width * 3) > LARGEST_CLIP:
        message = f"{name}: {frames} frames of {width}x{height} take {count:,} bytes"
        raise DataError(message, f"at most {LARGEST_CLIP:,} are decoded at once: fewer or smaller frames", "too_large")
    return Pictures(stream, size, name)


def _places(pts: Sequence[int], indices: Sequence[int]) -> dict[int, list[int]]:
    """Presentation time -> the places of that frame in the answer."""
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(pts[index], []).append(place)
    return places


def _verified_times(stream: VideoStream, info: VideoInfo) -> list[int]:
    """The file's own timestamps, by its constant rate."""
    assert stream.time_base
    return [(stream.start_time or 0) + round(number * info.time_base / stream.time_base) for number in info.pts]


def _jumps(wanted: list[int], keys: Sequence[int]) -> list[tuple[int, int]]:
    """(where to seek, last time wanted from there): a jump only where it passes over a whole group of pictures."""
    jumps: list[tuple[int, int]] = []
    last_group = -2
    for pts in wanted:
        group = max(bisect_right(keys, pts) - 1, 0)
        start = keys[group] if group > last_group + 1 else jumps.pop()[0]
        jumps.append((start, pts))
        last_group = group
    return jumps


def _after_jumps(
    container: InputContainer, stream: VideoStream, jumps: list[tuple[int, int]], keys: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """(pts, frame) from each key frame on; ends early where a jump does not lead to one, or damage is found.

    No keys: what the container calls a key frame is one.
    """
    for start, last in jumps:
        container.seek(start, stream=stream)
        landed, done = False, False
        for packet in container.demux(stream):
            if not landed and not (packet.pts in keys if keys else packet.is_keyframe):
                return
            landed = True
            for frame in packet.decode():
                if frame.pts is None or frame.is_corrupt:
                    return
                done = done or frame.pts >= last
                yield frame.pts, frame
            if done:
                break


def _gather(
    frames: Iterable[tuple[int, VideoFrame]], places: dict[int, list[int]], pictures: Pictures
) -> np.ndarray | None:
    """The wanted frames in their places; None when one is missing."""
    missing, last = set(places), max(places)
    frames_THWC: np.ndarray | None = None
    for pts, frame in frames:
        if pts in missing:
            picture_HWC = pictures.picture(frame)
            if frames_THWC is None:
                frames_THWC = np.empty((sum(map(len, places.values())), *picture_HWC.shape), np.uint8)
            frames_THWC[places[pts]] = picture_HWC
            missing.remove(pts)
        if not missing or pts >= last:
            break
    return None if missing else frames_THWC


def by_decord(data: bytes, indices: Sequence[int], info: VideoInfo, size: Size | None = None) -> np.ndarray | None:
    """The same by decord, for a video without doubt. None when decord is not installed or finds fault with the video."""
    assert not info.doubt, info.doubt
    try:
        import decord
    except (ImportError, OSError):
        return None
    height, width = size or (-1, -1)
    with _as_path(data) as path:
        try:
            decord.logging.set_level(decord.logging.QUIET)
            reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
            return reader.get_batch(list(indices)).asnumpy() if len(reader) == info.frames else None
        except (RuntimeError, decord.DECORDError):
            return None


@contextmanager
def _as_path(data: bytes) -> Generator[str]:
    """The bytes as a file for decord, which keeps a copy for ever of what it is given as bytes. In memory on Linux."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("clip"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip"
            path.write_bytes(data)
            yield str(path)
