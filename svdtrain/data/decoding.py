"""Frames of an encoded video, exact or refused: by decord where a look at the packets finds it fit, else by PyAV."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from av.container import InputContainer

LARGEST_PICTURE = 8192 * 4352
HINT = "take it out of the data, or re-encode it: python scripts/pack_clips.py FOLDER OUT"
# A cut or damaged stream must raise, not yield patched pictures.
STRICT = {"err_detect": "explode"}


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, by its packets; nothing is decoded to know it."""

    container: str
    codec: str
    width: int
    """Of the coded picture, before the rotation that the container may ask for."""
    height: int
    pts: tuple[int, ...]
    """Presentation time of every frame that is shown, ascending, in units of time_base."""
    time_base: Fraction
    doubt: str
    """Why decord is not trusted with it; empty: nothing was found."""

    @property
    def frames(self) -> int:
        """Frames that are shown; the container may claim more."""
        return len(self.pts)

    @property
    def reader(self) -> Literal["decord", "pyav"]:
        """Who reads it (PyAV does both where decord is not installed)."""
        return "pyav" if self.doubt else "decord"

    @cached_property
    def times_T(self) -> np.ndarray:
        """float64 [T] seconds since the first frame."""
        ticks_T = np.array(self.pts, np.int64) - self.pts[0]
        return ticks_T * self.time_base.numerator / self.time_base.denominator

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return float(self.times_T[-1])

    @cached_property
    def fps(self) -> float:
        """Mean frames per second; 1 for a still."""
        return float((self.frames - 1) / ((self.pts[-1] - self.pts[0]) * self.time_base)) if self.frames > 1 else 1.0


def probe(data: bytes, name: str) -> VideoInfo:
    """Demux a video (0.5 ms for a small clip). DataError when it is none, holds no frames, or is absurdly large."""
    with _opened(data, name) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        packets = [_Packet(p.pts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size]
        shown = {packet.pts for packet in packets if packet.pts is not None and not packet.hidden}
        if not shown or stream.time_base is None:
            raise DataError(f"{name} holds no frames", HINT)
        return VideoInfo(
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            width=width,
            height=height,
            pts=tuple(sorted(shown)),
            time_base=stream.time_base,
            doubt=_doubt(container.format.name, stream, packets),
        )


def decode_frames(data: bytes, indices: Sequence[int], name: str, info: VideoInfo | None = None) -> np.ndarray:
    """Frames by their place in display order: uint8 RGB [T, H, W, 3], upright. `info` saves a second probe.

    Raises DataError when any of them cannot be decoded without damage.
    """
    info = info or probe(data, name)
    assert indices
    assert all(0 <= index < info.frames for index in indices), (name, list(indices), info.frames)
    frames_THWC = _by_decord(data, indices, info) if info.reader == "decord" else None
    return _by_pyav(data, indices, info, name) if frames_THWC is None else frames_THWC


def every_frame(data: bytes, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """(pts, uint8 RGB [H, W, 3]) of each frame from the first, upright, in display order. DataError on any damage."""
    last: tuple[int, tuple[int, ...]] | None = None
    with _opened(data, name) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt or frame.pts is None:
                raise DataError(f"{name} is damaged: the frame at {frame.time} s does not decode cleanly", HINT)
            picture_HWC = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            if last and frame.pts <= last[0]:
                raise DataError(f"{name} has wrong timestamps: {frame.pts} follows {last[0]}", HINT)
            if last and picture_HWC.shape != last[1]:
                raise DataError(f"{name} changes its picture size at {frame.time} s", HINT)
            last = frame.pts, picture_HWC.shape
            yield frame.pts, picture_HWC


class _Packet(NamedTuple):
    pts: int | None
    key: bool
    hidden: bool
    """Cut away by an edit list."""


def _doubt(container: str, stream: VideoStream, packets: list[_Packet]) -> str:
    """The first thing found that decord 0.6 reads wrongly without saying so, or cannot read.

    It lists key frames in packet order but frames in display order, and counts frames after a seek instead of looking
    at their times; so whatever makes the two orders differ around a key frame shifts its answers.
    """
    codec, picture = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt or ""
    times = [packet.pts for packet in packets]
    known = [pts for pts in times if pts is not None]
    key, leading = known[0], False
    for packet in packets:
        if packet.key and packet.pts is not None:
            key = packet.pts
        leading = leading or (packet.pts is not None and packet.pts < key)
    # Old x264 wrote 4:4:4 wrongly; FFmpeg allows for it by a note in the first packet, which a seek passes over.
    findings = {
        f"{container} container": not container.startswith(("mov", "matroska")),
        "AV1": codec == "av1",
        "edit list": any(packet.hidden for packet in packets),
        "missing or repeated timestamps": len(set(known)) != len(times),
        "starts before zero": min(known) < 0,
        "does not start with a key frame": not packets[0].key,
        "open GOP": leading,
        f"{len(packets)} packets where {stream.frames} are declared": stream.frames not in (0, len(packets)),
        "H.264 4:4:4": codec == "h264" and "444" in picture,
    }
    return next((what for what, found in findings.items() if found), "")


def _by_decord(data: bytes, indices: Sequence[int], info: VideoInfo) -> np.ndarray | None:
    """None when decord is not installed or finds fault with the video: PyAV then reads it, or says what is wrong."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    with _as_path(data) as path:
        try:
            decord.logging.set_level(decord.logging.QUIET)
            reader = decord.VideoReader(path, num_threads=1)
            return reader.get_batch(list(indices)).asnumpy() if len(reader) == info.frames else None
        except (RuntimeError, decord.DECORDError):
            return None


def _by_pyav(data: bytes, indices: Sequence[int], info: VideoInfo, name: str) -> np.ndarray:
    """Frames matched by their timestamps, decoded from the first frame on: a seek is where readers go wrong."""
    wanted = {info.pts[index] for index in indices}
    found: dict[int, np.ndarray] = {}
    for pts, picture_HWC in every_frame(data, name):
        if pts in wanted:
            found[pts] = picture_HWC
        if pts >= max(wanted):
            break
    if missing := len(wanted) - len(found):
        raise DataError(f"{name} is damaged: {missing} of {len(wanted)} frames cannot be decoded", HINT)
    return np.stack([found[info.pts[index]] for index in indices])


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


def _sniff(data: bytes) -> str | None:
    """FFmpeg's name for the container, by its first bytes: nothing else may guess (a playlist would be followed)."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if len(data) >= 376 and data[0] == data[188] == 0x47:
        return "mpegts"
    return None


@contextmanager
def _opened(data: bytes, name: str) -> Generator[tuple[InputContainer, VideoStream]]:
    kind = _sniff(data)
    if kind is None:
        raise DataError(f"{name} is no video: it starts with {data[:16]!r}", "mp4, mov, mkv, webm, avi and ts are read")
    try:
        with av.open(io.BytesIO(data), "r", format=kind, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream) or not stream.codec_context:  # None where no decoder knows it
                raise DataError(f"{name} holds no video stream that can be read", HINT)
            context = stream.codec_context
            if context.width * context.height > LARGEST_PICTURE:
                size = f"{context.width}x{context.height}"
                raise DataError(f"{name} has pictures of {size}", f"at most {LARGEST_PICTURE:,} pixels are read")
            context.options, context.thread_count = STRICT, 1
            yield container, stream
    except FFmpegError as error:
        raise DataError(f"{name} is damaged: {error.strerror}", HINT) from error
