"""Videos written and read back: every frame, at its time, close to what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from svdtrain.data.decoding import decode_frames, every_frame, probe
from svdtrain.generation.video_files import encode_mp4, write_mp4


def smooth_video(frames: int, height: int, width: int) -> np.ndarray:
    """uint8 [frames, height, width, 3]: soft coloured waves that drift, as a generated video might."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(x / 9 + t / 3), np.cos(y / 7 - t / 4), np.sin((x + y) / 11 + t / 2)]
    return (127.5 + 100 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2)))


@pytest.mark.parametrize("fps", [1, 7, 12.5, 24, 30])
@pytest.mark.parametrize(("frames", "height", "width"), [(8, 64, 64), (30, 48, 96)])
def test_a_round_trip_keeps_frames_times_and_pictures(frames: int, height: int, width: int, fps: float) -> None:
    video_THWC = smooth_video(frames, height, width)
    data = encode_mp4(video_THWC, fps)
    info = probe(data, "it")
    assert (info.frames, info.height, info.width) == (frames, height, width)
    assert info.fps == pytest.approx(fps, rel=1e-4)
    assert info.pts[0] == 0
    back_THWC = decode_frames(data, range(frames), "it", info)
    assert psnr(back_THWC, video_THWC) > 30
    assert min(psnr(a, b) for a, b in zip(back_THWC, video_THWC, strict=True)) > 28
    assert psnr(back_THWC[1:], video_THWC[:-1]) < psnr(back_THWC[1:], video_THWC[1:]) - 3, "frames stand in their order"


def test_what_we_write_needs_no_second_reader() -> None:
    """decord and PyAV find the same frames, and nothing about the file is doubtful, long ones with key frames included."""
    data = encode_mp4(smooth_video(60, 32, 32), 24)
    info = probe(data, "it")
    assert info.doubt == ""
    in_order = [picture_HWC for _, picture_HWC in every_frame(data, "it")]
    picked = [59, 0, 24, 25, 23]
    by_decord = decode_frames(data, picked, "it", info, reader="decord")
    assert (by_decord == np.stack([in_order[i] for i in picked])).all()


def test_equal_frames_give_equal_bytes() -> None:
    video_THWC = smooth_video(8, 64, 64)
    assert encode_mp4(video_THWC, 7) == encode_mp4(video_THWC.copy(), 7)
    assert encode_mp4(video_THWC, 7) != encode_mp4(video_THWC[::-1], 7)


ENCODE_NOISE = """
import hashlib, numpy as np
from svdtrain.generation.video_files import encode_mp4
soft = np.sin(np.arange(98)[:, None, None] / 9 + np.arange(130)[None, :, None] / 11 + np.arange(3)) * 100 + 127
noisy = [soft + np.random.default_rng(t).normal(0, 9, soft.shape) for t in range(9)]
print(hashlib.sha256(encode_mp4(np.stack(noisy).clip(0, 255).astype(np.uint8), 7)).hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills fresh memory on demand")
def test_bytes_do_not_depend_on_what_memory_held() -> None:
    """x264's mbtree read memory that nobody had written: glibc fills it with another byte in each process here."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", ENCODE_NOISE],
            env={**os.environ, "MALLOC_PERTURB_": fill},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for fill in ("0", "85", "170")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("height", "width", "even"), [(33, 47, (32, 46)), (32, 47, (32, 46)), (33, 46, (32, 46))])
def test_an_odd_size_loses_its_last_row_or_column(height: int, width: int, even: tuple[int, int]) -> None:
    video_THWC = smooth_video(3, height, width)
    data = encode_mp4(video_THWC, 7)
    back_THWC = decode_frames(data, range(3), "it")
    assert back_THWC.shape == (3, *even, 3)
    assert psnr(back_THWC, video_THWC[:, : even[0], : even[1]]) > 30


def test_frames_of_a_view_are_written_right() -> None:
    video_THWC = smooth_video(3, 32, 48)
    mirrored = video_THWC[:, :, ::-1]
    assert psnr(decode_frames(encode_mp4(mirrored, 7), range(3), "it"), mirrored) > 30


def test_a_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    video_THWC = smooth_video(3, 32, 32)
    write_mp4(tmp_path / "deep" / "er" / "a.mp4", video_THWC, 7)
    assert (tmp_path / "deep" / "er" / "a.mp4").read_bytes() == encode_mp4(video_THWC, 7)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("wrong", [np.zeros((3, 32, 32, 3), np.float32), np.zeros((3, 32, 32, 1), np.uint8)])
def test_other_arrays_are_a_programming_mistake(wrong: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        encode_mp4(wrong, 7)
