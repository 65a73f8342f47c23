"""Tiny videos by PyAV: a bright square that crosses a dark ground; and files that are no such thing."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE, FPS, FRAMES = 32, 8, 8
COLOURS = ((220, 120, 60), (60, 200, 160), (140, 90, 230))


def square(number: int, time: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """uint8 [height, width, 3]."""
    ground = np.random.default_rng(number).integers(30, 70, (height, width, 3), dtype=np.uint8)
    left, top = (3 * number + 2 * time) % (width - 10), (5 * number) % (height - 10)
    ground[top : top + 10, left : left + 10] = COLOURS[number % 3]
    return ground


def video(
    number: int = 0,
    *,
    frames: int = FRAMES,
    fps: int = FPS,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str = "mp4",
    size: tuple[int, int] = (SIZE, SIZE),
    times: list[float] | None = None,
    rotation: int = 0,
    picture: Callable[[int, int, int, int], np.ndarray] = square,
    **options: str,
) -> bytes:
    """Encoded; `number` tells one from the others, `times` in seconds give it a variable rate."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for time in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, time, *size), format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[time] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    """An mp4 with sound alone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            output.mux(packet)
    return buffer.getvalue()


def copied_from(data: bytes, first_second: float) -> bytes:
    """What `ffmpeg -ss T -c copy` makes: the packets from the key frame before T on, those before T hidden."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format="mp4") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        assert stream.time_base
        shift = round(first_second / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            output.mux(packet)
    return buffer.getvalue()


def huge() -> bytes:
    """Motion JPEG whose header and pictures all say 16384 x 8640."""
    data = video(codec="mjpeg", container="mov", frames=3, pixels="yuvj420p", size=(48, 80))
    place = data.index(b"jpeg") + 28
    data = data[:place] + struct.pack(">HH", 16384, 8640) + data[place + 4 :]
    return data.replace(struct.pack(">HH", 48, 80), struct.pack(">HH", 8640, 16384))


def endless() -> bytes:
    """2 KB that say they hold fifty million frames of one byte."""
    count, data = struct.pack(">I", 50_000_000), video(frames=4)
    place, chunks = data.index(b"stsz") + 8, data.index(b"stsc") + 16
    data = data[:place] + struct.pack(">I", 1) + count + data[place + 8 :]
    return data[:chunks] + count + data[chunks + 4 :]
