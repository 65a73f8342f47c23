"""What a video holds, by its header and packets: refused where it is none, is damaged, or would fill the memory."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from av.container import InputContainer

LARGEST_PICTURE = 8192 * 4352
MOST_FRAMES = 1 << 20
HINT = "take it out of the data, or re-encode it: python -m svdtrain prepare source=FOLDER out=DATASET"
MAGIC = (
    ("mov", re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip)", re.DOTALL)),
    ("matroska", re.compile(rb"\x1a\x45\xdf\xa3")),
    ("avi", re.compile(rb"RIFF.{4}AVI ", re.DOTALL)),
    ("mpeg", re.compile(rb"\x00\x00\x01\xba")),
    ("flv", re.compile(rb"FLV\x01")),
    ("asf", re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    ("gif", re.compile(rb"GIF8[79]a")),
    ("mpegts", re.compile(rb"\x47.{187}\x47.{187}", re.DOTALL)),
)
"""FFmpeg's name of a container, by its first bytes: nothing else may guess (a playlist would be followed)."""
STRICT = {"err_detect": "explode+crccheck+aggressive", "max_pixels": str(LARGEST_PICTURE)}
"""A cut or damaged stream must raise, not yield patched pictures; and no picture may grow huge after the first."""
READ = "mp4, mov, mkv, webm, avi, ts, mpg, flv, wmv and gif are read"
COUNTS = re.compile(rb"(?:stsz|stz2).{8}(.{4})|trun.{4}(.{4})|cmov", re.DOTALL)
"""Where an mp4 header says how many samples there are, or is itself compressed."""
HOLE = bytes(32)
"""Zeros that no encoder of these codecs writes: what a copy leaves that was not finished."""
DENSE = ("vp8", "vp9", "mpeg4")
SEEKABLE = ("h264", "hevc", "vp8", "vp9", "av1", "prores", "dnxhd", "mjpeg")
"""Codecs whose key frames need nothing that stands before them, in a container that lists them by time."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, by its packets; no more than its first frame is decoded to know it."""

    container: str
    codec: str
    width: int
    """Of the picture as it is shown, upright."""
    height: int
    pts: tuple[int, ...]
    """Presentation time of every frame that is shown, ascending, in units of time_base."""
    time_base: Fraction
    doubt: str
    """Why decord is not trusted with it; empty: nothing was found."""
    keys: tuple[int, ...] = ()
    """Presentation times from which decoding can start, ascending; none: only the first frame is safe."""
    verified: bool = False
    """Known from the index of a shard whose clips two readers have read alike: pts are in frames, not the file's."""

    @property
    def frames(self) -> int:
        """Frames that are shown; the container may claim more."""
        return len(self.pts)

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


def verified_info(frames: int, fps: float, height: int, width: int) -> VideoInfo:
    """What the index says of a verified clip, instead of a probe: constant rate, first frame at zero, upright."""
    steady = 1 / Fraction(fps).limit_denominator(1001)
    return VideoInfo("mov", "h264", width, height, tuple(range(frames)), steady, "", verified=True)


def probe(data: bytes, name: str) -> VideoInfo:
    """Demux a video (under 1 ms for a small clip) and decode its first frame, which alone knows the rotation.

    DataError when it is no video, holds no frames, is damaged at its start, or is absurdly large.
    """
    with opened(data, name) as (container, stream):
        context, found = stream.codec_context, _Packets(stream)
        context.flags |= Flags.low_delay  # the first frame at once, not after those that it waits for
        first = None
        for packet in container.demux(stream):
            if packet.size:
                found.add(packet)
            if len(found.times) > MOST_FRAMES:
                raise DataError(f"{name} has more than {MOST_FRAMES:,} frames", "cut it into pieces", "too_large")
            if first is None:
                first = next(iter(packet.decode()), None)
        if first is None or not found.shown or stream.time_base is None:
            raise DataError(f"{name} holds no frames", HINT, "damaged")
        if found.hole:
            raise DataError(f"{name} is damaged: it has a hole of zeros", HINT, "damaged")
        assert isinstance(first, av.VideoFrame)
        _check_picture(first.width, first.height, name)
        on_its_side = round(first.rotation / 90) % 2
        return VideoInfo(
            container=container.format.name,
            codec=context.codec.canonical_name,
            width=first.height if on_its_side else first.width,
            height=first.width if on_its_side else first.height,
            pts=tuple(sorted(found.shown)),
            time_base=stream.time_base,
            doubt=found.doubt(container.format.name, first.format.name),
            keys=found.entries(container.format.name, first.format.name),
        )


@contextmanager
def opened(data: bytes, name: str) -> Generator[tuple[InputContainer, VideoStream]]:
    """The container and its best video stream, set to raise on damage. What FFmpeg says inside becomes a DataError."""
    kind = next((kind for kind, magic in MAGIC if magic.match(data)), None)
    if kind is None:
        raise DataError(f"{name} is no video: it starts with {data[:16]!r}", READ, "no_media")
    if kind == "mov":
        _check_tables(data, name)
    options = {"skip_frame": "all"}  # nothing is decoded while the streams are looked at
    try:
        with av.open(io.BytesIO(data), "r", format=kind, metadata_errors="replace", options=options) as container:
            stream = container.streams.best("video")
            if (
                not isinstance(stream, VideoStream)
                or not stream.codec_context  # None where no decoder knows it
                or stream.disposition & Disposition.attached_pic
            ):
                raise DataError(f"{name} holds no video stream that can be read", HINT, "no_media")
            _check_picture(stream.codec_context.width, stream.codec_context.height, name)
            if stream.frames > MOST_FRAMES:
                raise DataError(f"{name} declares {stream.frames:,} frames", f"at most {MOST_FRAMES:,}", "too_large")
            stream.codec_context.options = STRICT
            stream.codec_context.thread_count = 1
            yield container, stream
    except FFmpegError as error:
        raise DataError(f"{name} is damaged: {error.strerror}", HINT, "damaged") from error


class _Packets:
    """What the packets of a stream show about its order and its key frames."""

    def __init__(self, stream: VideoStream) -> None:
        self.codec, self._stream = stream.codec_context.codec.canonical_name, stream
        self._prefix = _length_prefix(self.codec, stream.codec_context.extradata or b"")
        self.times: list[int | None] = []
        self.shown: set[int] = set()
        self.starts: list[int] = []
        """Times of key frames from which decoding can start."""
        self.hidden = self.leading = self.late_key = self.hole = False
        self._key: int | None = None

    def add(self, packet: av.Packet[VideoStream]) -> None:
        pts = packet.pts
        self.late_key = self.late_key or (not self.times and not packet.is_keyframe)
        self.times.append(pts)
        self.hidden = self.hidden or packet.is_discard
        content = bytes(packet) if self._prefix or self.codec in DENSE else b""
        self.hole = self.hole or HOLE in content
        if pts is None:
            return
        if not packet.is_discard:
            self.shown.add(pts)
        if packet.is_keyframe:
            self._key = pts
            if self._prefix is None or self._is_entry(content):
                self.starts.append(pts)
        self.leading = self.leading or (self._key is not None and pts < self._key)

    def _is_entry(self, packet: bytes) -> bool:
        """Whether it holds a picture that forgets all before it, whatever the container says."""
        assert self._prefix
        kinds = (first & 31 if self.codec == "h264" else first >> 1 & 63 for first in _units(packet, self._prefix))
        return any(kind == 5 if self.codec == "h264" else 16 <= kind <= 21 for kind in kinds)

    def doubt(self, container: str, pixels: str) -> str:
        """The first thing found that decord 0.6 reads wrongly without saying so, or cannot read.

        It lists key frames in packet order but frames in display order, and counts frames after a seek instead of
        looking at their times; so whatever makes the two orders differ around a key frame shifts its answers.
        """
        known = [pts for pts in self.times if pts is not None]
        declared, called_keys = self._stream.frames, sum(entry.is_keyframe for entry in self._stream.index_entries)
        findings = {
            f"{container} container": not container.startswith(("mov", "matroska")),
            "AV1": self.codec == "av1",
            "edit list": self.hidden,
            "missing or repeated timestamps": len(set(known)) != len(self.times),
            "starts before zero": min(known) < 0,
            "does not start with a key frame": self.late_key,
            "open GOP": self.leading,
            "key frames that need others": called_keys > len(self.starts),
            f"{len(self.times)} packets where {declared} are declared": declared not in (0, len(self.times)),
            "H.264 4:4:4": _needs_first_packet(self.codec, pixels),
        }
        return next((what for what, found in findings.items() if found), "")

    def entries(self, container: str, pixels: str) -> tuple[int, ...]:
        """Where decoding may start; nothing where a seek cannot be trusted."""
        listed = container.startswith(("mov", "matroska")) and self.codec in SEEKABLE
        return tuple(sorted(self.starts)) if listed and not _needs_first_packet(self.codec, pixels) else ()


def _needs_first_packet(codec: str, pixels: str) -> bool:
    """Old x264 wrote 4:4:4 wrongly; FFmpeg allows for it by a note in the first packet, which a seek passes over."""
    return codec == "h264" and ("444" in pixels or pixels.startswith("gbr"))


def _length_prefix(codec: str, header: bytes) -> int | None:
    """Bytes that hold the length of each unit of an H.264 or HEVC packet; None: it has no such units to look at."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    return (header[place] & 3) + 1 if place and len(header) > place and header[0] == 1 else None


def _units(packet: bytes, prefix: int) -> Iterator[int]:
    """The first byte of each unit."""
    place = 0
    while place + prefix < len(packet):
        yield packet[place + prefix]
        place += prefix + int.from_bytes(packet[place : place + prefix], "big")


def _check_picture(width: int, height: int, name: str) -> None:
    if width * height > LARGEST_PICTURE:
        hint = f"at most {LARGEST_PICTURE:,} pixels are read"
        raise DataError(f"{name} has pictures of {width}x{height}", hint, "too_large")


def _check_tables(data: bytes, name: str) -> None:
    """FFmpeg makes room for every sample that an mp4 header declares; there can be no more of them than bytes."""
    place = declared = 0
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if size == 1:
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        end = min(place + size, len(data)) if size >= 8 else len(data)
        for found in COUNTS.finditer(data, place, end) if kind != b"mdat" else ():
            if found[0] == b"cmov":
                raise DataError(f"{name} has a compressed header", HINT, "too_large")
            declared += int.from_bytes(found[1] or found[2], "big")
        place = end
    if declared > len(data):
        raise DataError(f"{name} declares {declared:,} frames in {len(data):,} bytes", HINT, "too_large")
