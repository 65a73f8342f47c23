"""The matrix: what people have as videos, generated; each is to be read exactly, or refused in one line."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from av.codec.codec import Codec, UnknownCodecError
from av.stream import Disposition

from tests.data.videos import cut_without_decoding, mux_silence, number_of, picture, sound_stream, video

Make = Callable[[], bytes]
X265 = "log-level=none:keyint=10:min-keyint=10"
CUT_SHORT = "is damaged"


@dataclass(frozen=True)
class Case:
    make: Make
    frames: int = 40
    """That can be read; SOME: fewer than 40; 0: it is refused."""
    first: int = 0
    """The number burnt into the first of them."""
    refused: str = ""
    """What the message says, after the name."""
    codec: str = "libx264"
    """That PyAV must be able to write, with pictures of the next line."""
    pixels: str = "yuv420p"
    size: tuple[int, int] = (48, 80)
    """(height, width) upright."""
    turns: int = 0
    """Quarters that take the upright picture back to the one that was encoded."""


def exact(codec: str = "libx264", container: str = "mp4", **options: Any) -> Case:  # noqa: ANN401
    size, turns = (options.get("height", 48), options.get("width", 80)), -options.get("rotation", 0) // 90
    size = size[::-1] if turns % 2 else size
    frames, pixels = options.get("frames", 40), options.get("pixels", "yuv420p")
    return Case(lambda: video(codec, container, **options), frames, 0, "", codec, pixels, size, turns)


def refused(message: str, make: Make) -> Case:
    return Case(make, 0, 0, message)


def renamed(data: bytes, box: bytes, name: bytes = b"free") -> bytes:
    """An mp4 whose box FFmpeg will pass over."""
    assert data.count(box) == 1
    return data.replace(box, name)


def with_last_picture(height: int, width: int) -> bytes:
    """Motion JPEG, 80x48, whose last picture is of another size."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as output:
        stream: Any = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj420p"
        for number in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, 48, 80), format="rgb24")))
        other: Any = av.CodecContext.create("mjpeg", "w")
        other.width, other.height, other.pix_fmt, other.time_base = width, height, "yuvj420p", Fraction(1, 25)
        frame = av.VideoFrame(width, height, "yuvj420p")
        frame.pts = 3
        for packet in [*other.encode(frame), *other.encode()]:
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            output.mux(packet)
    return buffer.getvalue()


def with_cover() -> bytes:
    """A picture as the first stream, the video as the second."""
    with TemporaryDirectory() as folder, av.open(str(Path(folder) / "x.mp4"), "w") as output:
        cover: Any = output.add_stream("mjpeg", rate=25)
        stream: Any = output.add_stream("libx264", rate=25)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        output.mux(cover.encode(av.VideoFrame.from_ndarray(picture(1023, 240, 320), format="rgb24")))
        for number in range(40):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, 48, 80), format="rgb24")))
        output.mux(stream.encode())
        output.close()
        return (Path(folder) / "x.mp4").read_bytes()


def sound_only(container: str = "mp4", *, cover: bool = False) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        cover_stream: Any = output.add_stream("mjpeg", rate=25) if cover else None
        silence = sound_stream(output)
        if cover:
            cover_stream.width, cover_stream.height, cover_stream.pix_fmt = 320, 240, "yuvj420p"
            cover_stream.disposition = Disposition.attached_pic
            output.mux(cover_stream.encode(av.VideoFrame.from_ndarray(picture(3, 240, 320), format="rgb24")))
            output.mux(cover_stream.encode())
        mux_silence(output, silence)
    return buffer.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def flipped(data: bytes, count: int, where: tuple[float, float] = (0.3, 0.9), seed: int = 0) -> bytes:
    """Single bits turned over, in a part of the file."""
    draw, changed = random.Random(seed), bytearray(data)
    for _ in range(count):
        changed[draw.randrange(int(len(data) * where[0]), int(len(data) * where[1]))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def hole(data: bytes, share: float = 0.5, size: int = 400) -> bytes:
    start = int(len(data) * share)
    return data[:start] + bytes(size) + data[start + size :]


def png() -> bytes:
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 80, 48, "rgb24", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(5, 48, 80), format="rgb24")
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode()])


def huge_picture() -> bytes:
    """Motion JPEG whose header and pictures all say 16384x8640."""
    data = video("mjpeg", "mov", frames=3, pixels="yuvj420p")
    stsd = data.index(b"jpeg") + 28
    data = data[:stsd] + struct.pack(">HH", 16384, 8640) + data[stsd + 4 :]
    return data.replace(struct.pack(">HH", 48, 80), struct.pack(">HH", 8640, 16384))


def many_samples(box: bytes) -> bytes:
    """An mp4 of 2 KB that says it holds fifty million frames of one byte."""
    count = struct.pack(">I", 50_000_000)
    if box == b"trun":
        data = video(frames=12, movflags="frag_keyframe+empty_moov+default_base_moof")
        place = data.index(box) + 4
        return data[:place] + struct.pack(">I", 1) + count + data[place + 8 :]
    data = video(frames=4)
    place, chunks = data.index(box) + 8, data.index(b"stsc") + 16
    data = data[:place] + struct.pack(">I", 1) + count + data[place + 8 :]
    return data[:chunks] + count + data[chunks + 4 :]


SOME = -1
FINE_HEVC: Make = lambda: video("libx265", frames=50, grain=30, params=f"{X265}:crf=15")  # noqa: E731
VARIABLE = [0.02 * n * n for n in range(20)]
GAP = [n / 25 + (n > 10) * 7 for n in range(20)]
DNXHR = {"profile": "dnxhr_sq", "pixels": "yuv422p", "height": 144, "width": 256}
ALPHA = {"pixels": "yuva420p", "auto-alt-ref": "0"}

CASES: dict[str, Case] = {
    "H.264": exact(),
    "H.264, faststart": exact(movflags="faststart"),
    "H.264, fragmented": exact(movflags="frag_keyframe+empty_moov", g="12"),
    "H.264, long GOP": exact(frames=300, g="250"),
    "H.264, short GOP": exact(frames=300, g="5", bf="2"),
    "H.264, only key frames": exact(g="1"),
    "H.264, no B-frames": exact(bf="0", g="12", profile="baseline"),
    "H.264, pyramid of B-frames": exact(frames=100, g="24", bf="8", params="b-pyramid=normal:ref=4"),
    "H.264, open GOP": exact(frames=100, g="10", bf="3", params="open-gop=1"),
    "H.264, open GOP, matroska": exact(container="matroska", frames=100, g="10", bf="3", params="open-gop=1"),
    "H.264, intra refresh": exact(frames=100, g="20", params="intra-refresh=1"),
    "H.264, intra refresh, no B-frames": exact(frames=100, g="20", bf="0", params="intra-refresh=1"),
    "H.264, every frame called a key frame": Case(lambda: renamed(video(frames=100, g="50"), b"stss"), 100),
    "H.264, lossless": exact(qp="0"),
    "H.264, 4:2:2": exact(pixels="yuv422p"),
    "H.264, 4:4:4": exact(pixels="yuv444p", frames=100, g="20"),
    "H.264, RGB": exact("libx264rgb", pixels="rgb24"),
    "H.264, odd size": exact(pixels="yuv444p", height=47, width=65),
    "H.264, 10 bit": exact(pixels="yuv420p10le"),
    "H.264, full range, BT.709": exact(pixels="yuvj420p", colorspace="bt709"),
    "H.264, interlaced": exact(flags="+ildct+ilme", params="tff=1"),
    "H.264, wide pixels": exact(params="sar=4/3"),
    "H.264, tiny": exact(height=18, width=32),
    "H.264, one frame": exact(frames=1),
    "H.264, two frames": exact(frames=2),
    "H.264, NTSC rate": exact(fps=30000 / 1001),
    "H.264, matroska": exact(container="matroska", frames=100, g="24"),
    "H.264, MPEG-TS": exact(container="mpegts", frames=100, g="24"),
    "H.264, AVI": exact(container="avi", bf="0", g="24"),
    "H.264, AVI, B-frames": refused("has wrong timestamps", lambda: video(container="avi", bf="2", g="24")),
    "H.264, FLV": exact(container="flv", frames=100, g="24"),
    "H.264, with sound": exact(sound=True),
    "H.264, cover art first": Case(with_cover),
    "H.264, variable rate": exact(frames=20, times=VARIABLE),
    "H.264, variable rate, matroska": exact(container="matroska", frames=20, times=VARIABLE),
    "H.264, a gap of 7 s": exact(frames=20, times=GAP),
    "H.264, starts at 3 s": exact(frames=20, times=[3 + n / 25 for n in range(20)], g="8"),
    "H.264, rotated 90": exact(rotation=90),
    "H.264, rotated 180": exact(rotation=180),
    "H.264, rotated 270": exact(rotation=-90),
    "H.264, rotated 90, matroska": exact(container="matroska", rotation=90),
    "H.264, edit list": Case(lambda: cut_without_decoding(video(frames=100, g="50"), 2.6), 35, 65),
    "H.264, edit list over 200 frames": Case(lambda: cut_without_decoding(video(frames=300, g="250"), 8.4), 90, 210),
    "HEVC, closed GOP": exact("libx265", params=f"{X265}:open-gop=0"),
    "HEVC, open GOP": exact("libx265", params=f"{X265}:open-gop=1", frames=60),
    "HEVC, open GOP, matroska": exact("libx265", "matroska", params=f"{X265}:open-gop=1", frames=60),
    "HEVC, MPEG-TS": exact("libx265", "mpegts", params=X265),
    "HEVC, 10 bit": exact("libx265", params=X265, pixels="yuv420p10le"),
    "HEVC, 12 bit": exact("libx265", params=X265, pixels="yuv420p12le"),
    "VP8": exact("libvpx", "webm", g="12"),
    "VP9": exact("libvpx-vp9", "webm", g="12"),
    "VP9, odd size": exact("libvpx-vp9", "webm", height=47, width=65, frames=20),
    "VP9, 10 bit": exact("libvpx-vp9", "webm", pixels="yuv420p10le", profile="2", frames=20),
    "VP9, alpha": exact("libvpx-vp9", "webm", **ALPHA, frames=20),
    "VP9, mp4": exact("libvpx-vp9", frames=20),
    "AV1": exact("libsvtav1", height=64, preset="12", g="12"),
    "AV1, webm": exact("libsvtav1", "webm", height=64, frames=20, preset="12"),
    "AV1, 10 bit": exact("libsvtav1", height=64, frames=20, preset="12", pixels="yuv420p10le"),
    "ProRes 422": exact("prores_ks", "mov", pixels="yuv422p10le"),
    "ProRes 4444, alpha": exact("prores_ks", "mov", pixels="yuva444p10le"),
    "DNxHR": exact("dnxhd", "mov", **DNXHR),
    "FFV1": exact("ffv1", "matroska"),
    "Motion JPEG": exact("mjpeg", "mov", pixels="yuvj420p"),
    "Motion JPEG, AVI": exact("mjpeg", "avi", pixels="yuvj420p"),
    "MPEG-4": exact("mpeg4", bf="2", g="12"),
    "MPEG-4, AVI": exact("mpeg4", "avi", g="12"),
    "MPEG-4, AVI, B-frames": exact("mpeg4", "avi", bf="2", g="12"),
    "WMV": exact("wmv2", "asf", g="12"),
    "MPEG-2, program stream": exact("mpeg2video", "mpeg", g="12", bf="2"),
    "MPEG-2, MPEG-TS": exact("mpeg2video", "mpegts", g="12", bf="2"),
    "MPEG-1, program stream": exact("mpeg1video", "mpeg", g="12", bf="2"),
    "GIF": exact("gif", "gif", pixels="rgb8", fps=10),
    "matroska cut at 50 %": Case(lambda: cut(video(container="matroska", grain=30), 0.5), SOME),
    "matroska cut at 95 %": Case(lambda: cut(video(container="matroska", grain=30), 0.95), SOME),
    "webm cut at 50 %": Case(lambda: cut(video("libvpx", "webm"), 0.5), SOME, codec="libvpx"),
    "MPEG-TS cut at 50 %": Case(lambda: cut(video(container="mpegts", grain=30), 0.5), SOME),
    "size changes": refused("changes its picture size", lambda: with_last_picture(40, 64)),
    "sound only": refused("holds no video stream", sound_only),
    "sound only, matroska": refused("holds no video stream", lambda: sound_only("matroska")),
    "sound with cover art": refused("holds no video stream", lambda: sound_only(cover=True)),
    "sound only, ADTS": refused("is no video", lambda: sound_only("adts")),
    "faststart, cut at 50 %": refused(CUT_SHORT, lambda: cut(video(movflags="faststart", grain=30), 0.5)),
    "faststart, cut at 95 %": refused(CUT_SHORT, lambda: cut(video(movflags="faststart", grain=30), 0.95)),
    "cut before its index": refused(CUT_SHORT, lambda: cut(video(grain=30), 0.9)),
    "only a header": refused(CUT_SHORT, lambda: video()[:200]),
    "zeroed hole": refused(CUT_SHORT, lambda: hole(video(frames=60, g="60", grain=30))),
    "zeroed hole, HEVC": refused(CUT_SHORT, lambda: hole(FINE_HEVC())),
    "text": refused("is no video: it starts with b'hello, I am no v'", lambda: b"hello, I am no video at all"),
    "web page": refused("is no video: it starts with b'<!DOCTYPE html><'", lambda: b"<!DOCTYPE html><html></html>"),
    "random bytes": refused("is no video", lambda: random.Random(0).randbytes(5000)),
    "a box of 2^64 bytes": refused("is damaged", lambda: b"\0\0\0\1moov" + b"\xff" * 40),
    "empty": refused("is no video: it starts with b''", lambda: b""),
    "zeros": refused("is no video", lambda: bytes(4096)),
    "picture": refused("is no video: it starts with b'\\x89PNG", png),
    "playlist": refused("is no video: it starts with b'#EXTM3U", lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://[::1]:9/a\n"),
    "concat list": refused("is no video", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "session description": refused("is no video", lambda: b"v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
    "huge picture": refused("has pictures of 16384x8640", huge_picture),
    "picture grows huge": refused(CUT_SHORT, lambda: with_last_picture(4500, 9000)),
    "fifty million samples": refused("declares 50,000,000 frames in", lambda: many_samples(b"stsz")),
    "fifty million samples, fragmented": refused("declares 50,000,", lambda: many_samples(b"trun")),
}

WHOLE: dict[str, Make] = {
    "H.264": lambda: video(frames=75, grain=30, g="25"),
    "H.264, CAVLC": lambda: video(frames=75, grain=30, g="25", profile="baseline"),
    "H.264, fragmented": lambda: video(frames=75, grain=30, g="25", movflags="frag_keyframe+empty_moov"),
    "H.264, matroska": lambda: video(container="matroska", frames=75, grain=30, g="25"),
    "H.264, MPEG-TS": lambda: video(container="mpegts", frames=75, grain=30, g="25"),
    "HEVC": FINE_HEVC,
    "VP9": lambda: video("libvpx-vp9", "webm", frames=50, grain=30, g="25"),
    "MPEG-4, AVI": lambda: video("mpeg4", "avi", frames=50, grain=30, g="25"),
    "ProRes": lambda: video("prores_ks", "mov", frames=20, grain=30, pixels="yuv422p10le"),
}
HARM: dict[str, Callable[[bytes], bytes]] = {
    "a hole": hole,
    "a hole near the end": lambda data: hole(data, 0.8),
    "cut at 70 %": lambda data: cut(data, 0.7),
}


def numbers(frames: Iterable[np.ndarray], case: Case | None = None) -> list[int]:
    """The numbers burnt into frames of a case."""
    return [number_of(np.rot90(picture, case.turns if case else 0)) for picture in frames]


def made(name: str) -> bytes:
    """The video of a case; the test is skipped where this PyAV cannot write it."""
    case = CASES[name]
    try:
        formats = Codec(case.codec, "w").video_formats or []
    except UnknownCodecError:
        formats = []
    if case.pixels not in {form.name for form in formats}:
        pytest.skip(f"this PyAV writes no {case.codec} in {case.pixels}: '{name}' is not tested")
    return case.make()
