"""Every reader gives the frame that was asked for, or none; what is no clean video is refused in one line."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from svdtrain.data.decoding import decode_frames, every_frame, probe
from svdtrain.foundation.errors import DataError
from tests.data.videos import REAL_CLIPS, cut_without_decoding, number_of, video

X265 = "log-level=none:keyint=10:min-keyint=10"
VARIABLE = [0.02 * n * n for n in range(20)]

MATRIX = {
    "H.264": (lambda: video(), ""),
    "H.264, long GOP": (lambda: video(frames=300, g="250"), ""),
    "H.264, short GOP": (lambda: video(frames=300, g="5", bf="2"), ""),
    "H.264, odd size": (lambda: video(pixels="yuv444p", height=47, width=65), "H.264 4:4:4"),
    "H.264, 10 bit": (lambda: video(pixels="yuv420p10le"), ""),
    "H.264, open GOP": (lambda: video(g="10", bf="3", params="open-gop=1"), "open GOP"),
    "H.264, fragmented": (lambda: video(movflags="frag_keyframe+empty_moov", g="12"), ""),
    "H.264, matroska": (lambda: video(container="matroska"), ""),
    "H.264, MPEG-TS": (lambda: video(container="mpegts"), "mpegts container"),
    "H.264, variable rate": (lambda: video(frames=20, times=VARIABLE), ""),
    "H.264, edit list": (lambda: cut_without_decoding(video(frames=100, g="50"), 2.6), "edit list"),
    "H.264, edit list over 200 frames": (lambda: cut_without_decoding(video(frames=300, g="250"), 8.4), "edit list"),
    "HEVC, closed GOP": (lambda: video("libx265", params=f"{X265}:open-gop=0"), ""),
    "HEVC, open GOP": (lambda: video("libx265", params=f"{X265}:open-gop=1"), "open GOP"),
    "MPEG-4 AVI": (lambda: video("mpeg4", "avi"), "avi container"),
    "MPEG-4 AVI, B-frames": (lambda: video("mpeg4", "avi", bf="2", g="12"), "avi container"),
    "VP9, odd size": (lambda: video("libvpx-vp9", "webm", height=47, width=65, frames=20), ""),
    "AV1": (lambda: video("libsvtav1", height=64, width=80, frames=20, preset="12"), "AV1"),
}


@pytest.mark.parametrize("case", MATRIX)
def test_frames_are_the_ones_asked_for(case: str) -> None:
    make, doubt = MATRIX[case]
    data = make()
    info = probe(data, case)
    assert info.doubt == doubt
    every = [number_of(picture) for _, picture in every_frame(data, case)]
    first = every[0]
    assert every == list(range(first, first + info.frames))
    assert (first > 0) == ("edit list" in case)
    chosen = random.Random(0).sample(range(info.frames), 12)
    for indices in (chosen, sorted(chosen), [info.frames - 1], [info.frames // 2] * 2):
        frames_THWC = decode_frames(data, indices, case)
        assert [number_of(picture) - first for picture in frames_THWC] == indices


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_both_readers_turn_pictures_upright(rotation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(rotation=rotation, frames=8)
    assert probe(data, "x").reader == "decord"
    by_decord = decode_frames(data, [0, 5], "x")
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(by_decord, decode_frames(data, [0, 5], "x"))
    turned = np.rot90(by_decord[1], -rotation // 90)
    assert number_of(turned) == 5
    assert by_decord.shape[1:3] == ((48, 80) if rotation == 180 else (80, 48))


def test_without_decord_pyav_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video()
    by_decord = decode_frames(data, [30, 3], "x")
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(by_decord, decode_frames(data, [30, 3], "x"))


def test_without_memfd_a_file_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create")
    assert [number_of(p) for p in decode_frames(video(), [7, 2], "x")] == [7, 2]


def _damaged() -> bytes:
    data = bytearray(video(frames=60, g="60", crf="5"))
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[start : start + 400] = bytes(400)
    return bytes(data)


REFUSED = {
    "text": (lambda: b"hello, I am no video at all", "is no video: it starts with b'hello, I am no v'"),
    "empty": (lambda: b"", "is no video: it starts with b''"),
    "playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "is no video: it starts with b'#EXTM3U"),
    "concat list": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "is no video"),
    "web page": (lambda: b"<!DOCTYPE html><html></html>", "is no video"),
    "only a header": (lambda: video()[:200], "is damaged"),
    "cut": (lambda: video()[:-300], "is damaged"),
    "zeroed hole": (_damaged, "is damaged"),
    "sound only": (lambda: _sound(), "holds no video stream"),
}


def _sound() -> bytes:
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str) -> None:
    make, message = REFUSED[case]
    data = make()
    with pytest.raises(DataError) as caught:
        decode_frames(data, range(probe(data, "clip 'a' in s.tar").frames), "clip 'a' in s.tar")
    assert caught.value.message.startswith(f"clip 'a' in s.tar {message}")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_title_that_is_not_utf8_is_no_damage() -> None:
    data = video(frames=5).replace(b"VideoHandler", b"Vid\xe9oHandler")
    assert b"Vid\xe9o" in data
    assert probe(data, "x").frames == 5


def test_absurd_pictures_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svdtrain.data.decoding.LARGEST_PICTURE", 80 * 48 - 1)
    with pytest.raises(DataError, match="x has pictures of 80x48"):
        probe(video(), "x")


def test_mutated_files_are_decoded_or_refused_never_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyAV alone: decord may end the process on such files."""
    monkeypatch.setitem(sys.modules, "decord", None)
    bases = [video(frames=12), video(container="matroska", frames=12), video("mpeg4", "avi", frames=12)]
    draw = random.Random(0)
    refused = 0
    for turn in range(60):
        data = bytearray(bases[turn % 3])
        for _ in range(1 + turn % 8):
            data[draw.randrange(12, len(data))] = draw.randrange(256)
        if turn % 4 == 0:
            del data[draw.randrange(len(data)) :]
        try:
            info = probe(bytes(data), "x")
            decode_frames(bytes(data), range(info.frames), "x", info)
        except DataError:
            refused += 1
    assert refused > 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_flat_over_many_clips() -> None:
    data = video(frames=24, height=240, width=320, crf="1") + bytes(2_000_000)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(20):
        decode_frames(data, [0, 20], "x")
    before = resident()
    for _ in range(60):
        decode_frames(data, [0, 20], "x")
    assert resident() - before < 20_000_000


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
@pytest.mark.parametrize(
    ("file", "frames", "reader"),
    [
        ("bigbuckbunny.mp4", 132, "decord"),
        ("realshort.mp4", 36, "decord"),
        ("cockatoo.mp4", 280, "pyav"),
        ("decord_video_90.mov", 3, "decord"),
    ],
)
def test_real_clips_are_exact_at_random_access(file: str, frames: int, reader: str) -> None:
    data = (REAL_CLIPS / file).read_bytes()
    info = probe(data, file)
    assert (info.frames, info.reader) == (frames, reader)
    last = min(100, frames - 1)
    indices = [last, last // 2]
    exact = {pts: picture for pts, picture in every_frame(data, file) if pts in {info.pts[i] for i in indices}}
    np.testing.assert_array_equal(
        decode_frames(data, indices, file), np.stack([exact[info.pts[index]] for index in indices])
    )


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
def test_a_damaged_real_clip_is_refused() -> None:
    data = (REAL_CLIPS / "decord_corrupted.mp4").read_bytes()
    with pytest.raises(DataError, match="is damaged"):
        decode_frames(data, range(50), "x")
