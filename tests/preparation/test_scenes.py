"""Scene cuts: found to the frame, by the frames' own times, and never by following what a file points at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svdtrain.foundation.errors import DataError
from svdtrain.generation.video_files import encode_mp4
from svdtrain.preparation.scenes import find_cuts
from tests.data.videos import REAL_CLIPS, video


def panning(frames: int, seed: int, *, height: int = 96, width: int = 160) -> np.ndarray:
    """uint8 [T, H, W, 3]: a window that slides over a soft random picture."""
    rough = np.random.default_rng(seed).integers(0, 256, (height // 8, (width + 2 * frames) // 8 + 1, 3), np.uint8)
    scene_HWC = rough.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([scene_HWC[:, 2 * time : 2 * time + width] for time in range(frames)])


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("lengths", "cuts"), [((40,), []), ((24, 30, 26), [24, 54]), ((12, 5, 20), [12, 17]), ((25, 25, 25), [25, 50])]
)
def test_hard_cuts_are_found_to_the_frame(lengths: tuple[int, ...], cuts: list[int], tmp_path: Path) -> None:
    scenes = [panning(length, seed) for seed, length in enumerate(lengths)]
    path = written(tmp_path / "a.mp4", encode_mp4(np.concatenate(scenes), 20))
    assert find_cuts(path, "a.mp4") == pytest.approx([cut / 20 for cut in cuts])


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    """A transport stream starts at 1.4 s, and the numbered frames of `video` cut at every frame that changes a lot."""
    mp4 = find_cuts(written(tmp_path / "a.mp4", video(frames=40)), "a.mp4")
    stream = find_cuts(written(tmp_path / "a.ts", video("mpeg2video", "mpegts", frames=40)), "a.ts")
    assert mp4
    assert stream == pytest.approx(mp4, abs=1e-4)


@pytest.mark.parametrize("clip", ["bigbuckbunny.mp4", "cockatoo.mp4", "realshort.mp4"])
def test_a_real_take_is_one_scene(clip: str) -> None:
    if not (REAL_CLIPS / clip).is_file():
        pytest.skip("the real clips are not here")
    assert find_cuts(REAL_CLIPS / clip, clip) == []


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"
SCRIPT = "ffconcat version 1.0\nfile '{url}'\n"


@pytest.mark.parametrize("text", [PLAYLIST, SCRIPT, "plain text", ""])
def test_what_is_no_video_is_refused_and_not_followed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "good.mp4", video())
    bad = written(tmp_path / "bad.mp4", text.format(url="good.mp4").encode())
    with pytest.raises(DataError, match=r"^bad\.mp4 (is damaged: Invalid (data|argument)|is empty$)"):
        find_cuts(bad, "bad.mp4")


def test_damage_and_absence_are_refused(tmp_path: Path) -> None:
    data = video(frames=60)
    torn = written(tmp_path / "torn.mp4", data[: len(data) // 2])
    holed = written(tmp_path / "holed.mp4", data[: len(data) // 4] + bytes(len(data) // 4) + data[len(data) // 2 :])
    flipped = bytearray(encode_mp4(panning(60, 0), 20))
    first = flipped.index(b"mdat")
    for place in range(first + len(flipped) // 3, len(flipped) * 2 // 3, 1500):
        flipped[place] ^= 64
    bits = written(tmp_path / "bits.mp4", bytes(flipped))
    for path in (torn, holed, bits):
        with pytest.raises(DataError, match=rf"^{path.name} is damaged: Invalid data"):
            find_cuts(path, path.name)
    with pytest.raises(DataError, match=r"^gone\.mp4 cannot be read: No such file"):
        find_cuts(tmp_path / "gone.mp4", "gone.mp4")
