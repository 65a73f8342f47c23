"""The two readers: PyAV seeks only where that is exact, and decord gives the same bits wherever it is asked."""

from __future__ import annotations

import dataclasses
import random
import sys
from typing import Any

import numpy as np
import pytest

from svdtrain.data import readers
from svdtrain.data.decoding import by_decord, decode_frames, probe, verified_info
from svdtrain.foundation.errors import DataError
from tests.data.matrix import CASES, X265, made, numbers, renamed
from tests.data.videos import REAL_CLIPS, video

SEEKABLE = {
    "H.264": (lambda: video(frames=100, g="20", sc_threshold="0"), 5),
    "H.264, open GOP": (lambda: video(frames=100, g="10", bf="3", params="open-gop=1"), 1),
    "H.264, matroska": (lambda: video(container="matroska", frames=100, g="20", sc_threshold="0"), 5),
    "H.264, every frame called a key frame": (lambda: renamed(video(frames=100, g="50"), b"stss"), 3),
    "H.264, 4:4:4": (lambda: video(pixels="yuv444p", frames=100, g="20"), 0),
    "HEVC, open GOP": (lambda: video("libx265", params=f"{X265}:open-gop=1", frames=100), 10),
    "VP9": (lambda: video("libvpx-vp9", "webm", frames=60, g="20"), 3),
    "AV1": (lambda: video("libsvtav1", height=64, frames=60, preset="12", g="20"), 3),
    "MPEG-4": (lambda: video("mpeg4", frames=60, g="20"), 0),
    "MPEG-TS": (lambda: video(container="mpegts", frames=60, g="20"), 0),
}


@pytest.mark.parametrize("name", SEEKABLE)
def test_a_seek_finds_every_frame_and_reads_no_more_than_it_must(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, keys = SEEKABLE[name]
    data = make()
    info = probe(data, name)
    assert len(info.keys) == keys
    if not keys:
        return
    for index in range(info.frames):
        found = readers.by_seeking(data, [index], info, name, None)
        assert found is not None
        assert numbers(found) == [index]
    if keys == 1:
        return

    def never(*_: object) -> None:
        raise AssertionError("read from the first frame on")

    monkeypatch.setattr("svdtrain.data.decoding.by_decoding_all", never)
    indices = [info.frames - 1, info.frames // 2, info.frames - 2, 3]
    assert numbers(decode_frames(data, indices, name, info)) == indices


@pytest.mark.parametrize("boxes", [b"stss", b""])
def test_wrong_key_frames_cost_time_and_nothing_else(boxes: bytes) -> None:
    """What a probe would have to get wrong: times that are no key frames. Without stss the container says so too."""
    data = video(frames=100, g="50", grain=30)
    data = renamed(data, boxes) if boxes else data
    info = probe(data, "x")
    right = decode_frames(data, range(100), "x", dataclasses.replace(info, keys=()))
    for keys in (info.pts, info.pts[::7], info.pts[3::10], tuple(pts + 1 for pts in info.pts)):
        lied_to = dataclasses.replace(info, keys=keys)
        for index in (99, 51, 47, 10):
            np.testing.assert_array_equal(decode_frames(data, [index], "x", lied_to)[0], right[index])


def test_a_seek_that_leads_elsewhere_is_no_good() -> None:
    data = video(frames=100, g="50")
    info = probe(data, "x")
    lied_to = dataclasses.replace(info, keys=info.pts[3::10])
    assert readers.by_seeking(data, [99], lied_to, "x", None) is None


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
def test_after_a_key_frame_that_is_none_nothing_is_taken() -> None:
    """FFmpeg marks some of the pictures that follow as damaged, and others not, which are."""
    data = (REAL_CLIPS / "cockatoo.mp4").read_bytes()
    info = probe(data, "x")
    lied_to = dataclasses.replace(info, keys=tuple(info.pts[place] for place in (0, 76, 145)))
    assert readers.by_seeking(data, [148], lied_to, "x", None) is None


@pytest.mark.parametrize("options", [{}, {"bf": "0"}, {"fps": 30000 / 1001}, {"fps": 7}, {"container": "matroska"}])
def test_a_verified_clip_is_read_without_a_probe(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(frames=60, g="24", **options)
    info = verified_info(60, options.get("fps", 25), 48, 80)
    assert info.fps == pytest.approx(options.get("fps", 25))
    monkeypatch.setattr("svdtrain.data.decoding.probe", None)
    for indices in ([59], [0], [22, 23, 24, 25, 47, 48], list(range(60)), [30, 3]):
        assert numbers(decode_frames(data, indices, "x", info)) == indices


def test_a_clip_that_is_not_what_its_index_says_is_probed_or_refused() -> None:
    late = video(frames=60, times=[n / 25 + 0.013 * (n > 20) for n in range(60)])
    assert numbers(decode_frames(late, [50, 10], "x", verified_info(60, 25, 48, 80))) == [50, 10]
    with pytest.raises(DataError, match="x has 40 frames, its index says 60"):
        decode_frames(video(), [50], "x", verified_info(60, 25, 48, 80))


DOUBTS = {
    "H.264": "",
    "H.264, fragmented": "",
    "H.264, matroska": "",
    "H.264, variable rate": "",
    "HEVC, closed GOP": "",
    "VP9": "",
    "H.264, odd size": "H.264 4:4:4",
    "H.264, open GOP": "open GOP",
    "H.264, every frame called a key frame": "key frames that need others",
    "H.264, intra refresh, no B-frames": "key frames that need others",
    "H.264, MPEG-TS": "mpegts container",
    "H.264, edit list": "edit list",
    "H.264, edit list over 200 frames": "edit list",
    "HEVC, open GOP": "open GOP",
    "MPEG-4, AVI, B-frames": "avi container",
    "AV1": "AV1",
}


@pytest.mark.parametrize("name", DOUBTS)
def test_decord_is_asked_only_where_it_is_right(name: str) -> None:
    data, case = made(name), CASES[name]
    info = probe(data, name)
    assert info.doubt == DOUBTS[name]
    indices = random.Random(1).sample(range(info.frames), 12)
    if not info.doubt:
        by_both = by_decord(data, indices, info)
        assert by_both is not None
        np.testing.assert_array_equal(by_both, decode_frames(data, indices, name, info))
    frames_THWC = decode_frames(data, indices, name, info, reader="decord")
    assert numbers(frames_THWC, case) == [case.first + index for index in indices]


SIZES = [(96, 160), (24, 40), (31, 53), (48, 80), (200, 90)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"height": 180, "width": 320}, {"pixels": "yuvj420p", "colorspace": "bt709"}])
def test_both_readers_resize_alike(options: dict[str, Any], size: tuple[int, int]) -> None:
    data = video(grain=40, **options)
    info = probe(data, "x")
    by_pyav = decode_frames(data, [30, 7], "x", info, size=size)
    assert by_pyav.shape == (2, *size, 3)
    assert numbers(by_pyav) == [30, 7]
    np.testing.assert_array_equal(by_pyav, decode_frames(data, [30, 7], "x", info, size=size, reader="decord"))


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_a_size_is_of_the_upright_picture(rotation: int) -> None:
    data = video(rotation=rotation, frames=8)
    size = (31, 53)
    by_pyav, by_decord = (decode_frames(data, [5], "x", size=size, reader=reader) for reader in ("pyav", "decord"))
    assert by_pyav.shape == by_decord.shape == (1, *size, 3)
    assert numbers(by_pyav, dataclasses.replace(CASES["H.264"], turns=-rotation // 90)) == [5]
    assert np.abs(by_pyav.astype(int) - by_decord).mean() < 3


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_both_readers_turn_pictures_upright(rotation: int) -> None:
    data = video(rotation=rotation, frames=8)
    by_pyav, by_decord = (decode_frames(data, [0, 5], "x", reader=reader) for reader in ("pyav", "decord"))
    np.testing.assert_array_equal(by_pyav, by_decord)


def test_without_decord_pyav_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video()
    by_decord = decode_frames(data, [30, 3], "x", reader="decord")
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(by_decord, decode_frames(data, [30, 3], "x", reader="decord"))


def test_without_memfd_a_file_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create")
    assert numbers(decode_frames(video(), [7, 2], "x", reader="decord")) == [7, 2]
