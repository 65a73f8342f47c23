"""Videos for tests, each frame with its own number burnt in, so that a reader can be asked which frame it gave."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from svdtrain.data.shards import write_shard

BITS = 10
REAL_CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def picture(number: int, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: the number as ten vertical bars, dark for 0 and light for 1, lowest bit first.

    The lower half is darker, so that an upside-down picture reads as another number.
    """
    bars = np.array([number >> bit & 1 for bit in range(BITS)])
    row_W = np.where(bars[np.arange(width) * BITS // width], 210, 40).astype(np.uint8)
    picture_HW = np.tile(row_W, (height, 1))
    picture_HW[height // 2 :] //= 2
    return np.repeat(picture_HW[..., None], 3, axis=2)


def number_of(picture_HWC: np.ndarray) -> int:
    """The number in the upper half of a picture of any size."""
    height, width = picture_HWC.shape[:2]
    centres = (np.arange(BITS) * width + width // 2) // BITS
    return sum(int(picture_HWC[height // 4, column].mean() > 125) << bit for bit, column in enumerate(centres))


def video(
    codec: str = "libx264",
    container: str = "mp4",
    *,
    frames: int = 40,
    fps: float = 25,
    height: int = 48,
    width: int = 80,
    pixels: str = "yuv420p",
    times: list[float] | None = None,
    rotation: int = 0,
    movflags: str = "",
    params: str = "",
    first: int = 0,
    grain: int = 0,
    sound: bool = False,
    **options: str,
) -> bytes:
    """An encoded video of numbered frames; `times` in seconds gives it a variable rate, `params` go to x264 or x265.

    `first` is the first frame's number; grain, up to 40, makes frames that take many bytes.
    """
    with TemporaryDirectory() as folder:  # a file, for containers whose writer goes back to the beginning
        path = Path(folder) / "video"
        with av.open(str(path), "w", format=container, options={"movflags": movflags} if movflags else {}) as output:
            if params:
                options[f"{codec.removeprefix('lib')}-params"] = params
            stream: Any = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.thread_count = 1
            silence = sound_stream(output) if sound else None
            if rotation:
                stream.set_display_rotation(rotation)
            if times:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(frames):
                picture_HWC = picture(first + number, height, width)
                if grain:
                    picture_HWC += np.random.default_rng(number).integers(0, grain, picture_HWC.shape, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")
                if times:
                    frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
            if silence:
                mux_silence(output, silence)
        if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
            # Where it may, it makes the whole process real-time: processes started later would stop all others.
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return path.read_bytes()


def sound_stream(output: OutputContainer) -> AudioStream:
    return output.add_stream("aac", rate=16000)


def mux_silence(output: OutputContainer, stream: AudioStream) -> None:
    """A fraction of a second of it."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16000
    for packet in [*stream.encode(frame), *stream.encode()]:
        output.mux(packet)


def cut_without_decoding(data: bytes, first_second: float) -> bytes:
    """What `ffmpeg -ss T -c copy` makes: packets from the key frame before T, those before T hidden by an edit list."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as output:
        assert isinstance(source, InputContainer)
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


def shard(path: Path, clips: int, *, first: int = 0, sources: int | None = None, **options: Any) -> Path:  # noqa: ANN401
    """A shard of `clips` clips of one video, named clip-000 and so on; `sources` different source videos."""
    data = video(**options)
    names = [(f"clip-{number:03d}", f"video-{number % (sources or clips)}") for number in range(first, first + clips)]
    write_shard(path, ((key, data, {"fps": options.get("fps", 25), "source": source}) for key, source in names))
    return path
