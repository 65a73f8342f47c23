"""The reader gives the frame that was asked for, or none; what is no clean video is refused in one line."""

from __future__ import annotations

import http.server
import random
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from svdtrain.data.decoding import VideoInfo, decode_frames, every_frame, probe, verified_info
from svdtrain.foundation.errors import DataError
from tests.data.matrix import CASES, HARM, SOME, WHOLE, flipped, made, numbers
from tests.data.videos import REAL_CLIPS, video


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.frames])
def test_frames_are_the_ones_asked_for(name: str) -> None:
    case, data = CASES[name], made(name)
    info = probe(data, name)
    every = numbers([picture for _, picture in every_frame(data, name)], case)
    if case.frames == SOME:
        assert 5 < info.frames < 40
        assert every == np.round(info.times_T * 25).astype(int).tolist()
    else:
        assert every == list(range(case.first, case.first + case.frames))
    assert (info.frames, info.height, info.width) == (len(every), *case.size)
    chosen = random.Random(0).sample(range(info.frames), min(9, info.frames))
    for indices in (chosen, sorted(chosen), range(info.frames), [info.frames - 1], [info.frames // 2] * 2):
        frames_THWC = decode_frames(data, indices, name, info)
        assert frames_THWC.shape[1:] == (*case.size, 3)
        assert numbers(frames_THWC, case) == [every[index] for index in indices]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_refused_in_one_line(name: str) -> None:
    data = made(name)
    with pytest.raises(DataError) as caught:
        decode_frames(data, range(probe(data, "clip 'a' in s.tar").frames), "clip 'a' in s.tar")
    assert caught.value.message.startswith(f"clip 'a' in s.tar {CASES[name].refused}")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.reason in ("no_media", "damaged", "too_large")


@pytest.mark.parametrize(
    ("name", "harm"),
    [(name, harm) for name in WHOLE for harm in HARM if name.startswith(("H.264", "HEVC")) or "cut" in harm],
)
def test_of_a_damaged_video_each_frame_is_the_whole_ones_or_refused(name: str, harm: str) -> None:
    whole = WHOLE[name]()
    data, right = HARM[harm](whole), dict(every_frame(whole, name))
    assert data != whole
    try:
        info = probe(data, name)
    except DataError:
        return
    for index in range(info.frames):
        try:
            [picture_HWC] = decode_frames(data, [index], name, info)
        except DataError:
            continue
        np.testing.assert_array_equal(picture_HWC, right[info.pts[index]])


def test_most_frames_that_a_flipped_bit_changes_are_refused_in_h264() -> None:
    """A decoder sees a flip only where it breaks a rule. Of the rest a hash of the file alone can tell: so in HEVC."""
    altered, frames = Counter[bool](), Counter[bool]()
    for name, make in WHOLE.items():
        whole, h264 = make(), name.startswith("H.264")
        right = dict(every_frame(whole, name))
        for seed in range(9):
            data = flipped(whole, 1 + 3 * seed, (0.0, 1.0), seed)
            try:
                info = probe(data, name)
            except DataError:
                continue
            for index in range(0, info.frames, 9):
                frames[h264] += 1
                try:
                    [picture_HWC] = decode_frames(data, [index], name, info)
                except DataError:
                    continue
                altered[h264] += not np.array_equal(picture_HWC, right.get(info.pts[index], np.empty(0)))
    assert frames[True] > 200
    assert altered[True] < 0.1 * frames[True]


def test_lists_of_addresses_are_never_followed(tmp_path: Path) -> None:
    hits: list[str] = []

    class Count(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "secret.ts").write_bytes(video(container="mpegts"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Count) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for place in (f"http://127.0.0.1:{server.server_port}/a.ts", f"file://{tmp_path}/secret.ts"):
            for text in (
                f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n",
                f"ffconcat version 1.0\nfile {place}\n",
                f"<?xml?><MPD><BaseURL>{place}</BaseURL></MPD>",
                f"[playlist]\nFile1={place}\n",
            ):
                for padding in (0, 1000):
                    with pytest.raises(DataError, match="is no video"):
                        probe(text.encode() + b" " * padding, "x")
                    with pytest.raises(DataError, match="is no video"):
                        decode_frames(text.encode(), [0], "x", verified_info(9, 25, 48, 80), reader="decord")
        server.shutdown()
    assert hits == []


def test_a_title_that_is_not_utf8_is_no_damage() -> None:
    data = video(frames=5).replace(b"VideoHandler", b"Vid\xe9oHandler")
    assert b"Vid\xe9o" in data
    assert probe(data, "x").frames == 5


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("packets.LARGEST_PICTURE", "x has pictures of 80x48"),
        ("packets.MOST_FRAMES", "x declares 40 frames"),
        ("readers.LARGEST_CLIP", "x: 40 frames of 80x48 take 460,800 bytes"),
    ],
)
def test_limits_stand_before_decoding(limit: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = limit.partition(".")
    value = {"LARGEST_PICTURE": 80 * 48, "MOST_FRAMES": 40, "LARGEST_CLIP": 40 * 80 * 48 * 3}[name]
    data = video()
    monkeypatch.setattr(f"svdtrain.data.{module}.{name}", value)
    assert len(decode_frames(data, range(40), "x")) == 40
    monkeypatch.setattr(f"svdtrain.data.{module}.{name}", value - 1)
    with pytest.raises(DataError, match=message) as caught:
        decode_frames(data, range(40), "x")
    assert caught.value.reason == "too_large"


def test_mutated_files_are_decoded_or_refused_never_anything_else() -> None:
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


REAL = {  # frames, doubt
    "bigbuckbunny.mp4": (132, ""),
    "realshort.mp4": (36, ""),
    "cockatoo.mp4": (280, "H.264 4:4:4"),
    "decord_video_90.mov": (3, ""),
    "intel_bottle-detection.mp4": (1189, ""),
}


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
@pytest.mark.parametrize("file", REAL)
def test_real_clips_are_exact_at_random_access(file: str) -> None:
    data = (REAL_CLIPS / file).read_bytes()
    info = probe(data, file)
    assert (info.frames, info.doubt) == REAL[file]
    indices = random.Random(0).sample(range(min(info.frames, 300)), 3)
    exact = exact_frames(data, info, indices)
    np.testing.assert_array_equal(decode_frames(data, indices, file, info), exact)
    if not info.doubt:
        np.testing.assert_array_equal(decode_frames(data, indices, file, info, reader="decord"), exact)


def exact_frames(data: bytes, info: VideoInfo, indices: list[int]) -> np.ndarray:
    wanted, last = {info.pts[index]: place for place, index in enumerate(indices)}, info.pts[max(indices)]
    found: dict[int, np.ndarray] = {}
    for pts, picture_HWC in every_frame(data, "x"):
        if pts in wanted:
            found[wanted[pts]] = picture_HWC
        if pts == last:
            break
    return np.stack([found[place] for place in range(len(indices))])


@pytest.mark.skipif(not REAL_CLIPS.exists(), reason="needs the real clips")
def test_a_damaged_real_clip_is_refused() -> None:
    data = (REAL_CLIPS / "decord_corrupted.mp4").read_bytes()
    with pytest.raises(DataError, match="is damaged"):
        decode_frames(data, range(50), "x")
