"""Contact sheets and videos side by side: every picture whole and in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svdtrain.data.decoding import probe
from svdtrain.generation.comparison import Comparison
from svdtrain.generation.sheets import contact_sheet, side_by_side, stacked, write_png


def flat_video(frames: int, height: int, width: int, first: int = 10) -> np.ndarray:
    """uint8 [frames, height, width, 3]: frame t is the grey `first` + 5 t."""
    greys_T = (first + 5 * np.arange(frames)).astype(np.uint8)
    return np.broadcast_to(greys_T[:, None, None, None], (frames, height, width, 3)).copy()


def greys_in(picture_HWC: np.ndarray, row: int) -> list[int]:
    """The greys along a row of pixels, in order of appearance, without paper and repeats."""
    found: list[int] = []
    for pixel in picture_HWC[row]:
        if len(set(pixel.tolist())) == 1 and pixel[0] < 200 and (not found or found[-1] != pixel[0]):
            found.append(int(pixel[0]))
    return found


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (48, 32), (96, 96), (200, 120), (7, 9)])
@pytest.mark.parametrize("frames", [1, 8])
def test_a_sheet_of_one_row_shows_every_frame_in_order(frames: int, size: tuple[int, int]) -> None:
    sheet_HWC = contact_sheet([("", flat_video(frames, *size))])
    assert (sheet_HWC.dtype, sheet_HWC.shape[2]) == (np.uint8, 3)
    assert greys_in(sheet_HWC, sheet_HWC.shape[0] // 2) == [10 + 5 * t for t in range(frames)]


def test_rows_of_different_sizes_stand_below_each_other() -> None:
    rows = [
        ("base", flat_video(3, 64, 64)),
        ("with adapter", flat_video(5, 48, 96, 100)),
        ("long label " * 5, flat_video(1, 64, 64)),
    ]
    sheet_HWC = contact_sheet(rows)
    alone = [contact_sheet([row]) for row in rows]
    assert sheet_HWC.shape[0] == sum(one.shape[0] for one in alone) - 2 * 3
    middles = [
        alone[0].shape[0] // 2,
        alone[0].shape[0] + alone[1].shape[0] // 2,
        sheet_HWC.shape[0] - alone[2].shape[0] // 2,
    ]
    assert [greys_in(sheet_HWC[:, -1000:], row)[-1] for row in middles] == [20, 120, 10]
    assert sheet_HWC.shape[1] > max(one.shape[1] for one in alone[:2])


def test_labels_leave_ink() -> None:
    labelled, blank = (contact_sheet([(label, flat_video(1, 64, 64, 250))]) for label in ("base", "    "))
    assert (labelled < 128).any()
    assert not (blank < 128).any()


def test_small_pictures_grow_by_whole_pixels() -> None:
    picture_HWC = np.random.default_rng(0).integers(0, 200, (1, 32, 32, 3), dtype=np.uint8)
    sheet_HWC = contact_sheet([("", picture_HWC)], frame_height=96)
    grown_HWC = picture_HWC[0].repeat(3, axis=0).repeat(3, axis=1)
    left = sheet_HWC.shape[1] - 96 - 3
    assert np.array_equal(sheet_HWC[3:99, left : left + 96], grown_HWC)


def test_a_still_stands_beside_a_video() -> None:
    still, moving = flat_video(1, 64, 64, 150)[0], flat_video(4, 64, 64)
    video_THWC = side_by_side([("first frame", still), ("base", moving)])
    assert video_THWC.shape[0] == 4
    for t, frame_HWC in enumerate(video_THWC):
        assert greys_in(frame_HWC, 200) == [150, 10 + 5 * t]


def test_stacked_videos_keep_their_frames() -> None:
    top, bottom = flat_video(2, 8, 16), flat_video(2, 24, 16, 90)
    both = stacked([top, bottom])
    assert both.shape == (2, 32, 16, 3)
    assert np.array_equal(both[:, :8], top)
    assert np.array_equal(both[:, 8:], bottom)


def test_a_png_is_written_without_loss(tmp_path: Path) -> None:
    picture_HWC = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "a.png", picture_HWC)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture_HWC)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_a_comparison_writes_its_files(tmp_path: Path, inputs: int, height: int, width: int) -> None:
    video = flat_video(4, height, width)
    made = {"base": [video + 60] * inputs, "with adapter": [video + 120] * inputs}
    comparison = Comparison([video] * inputs, made, 7)
    comparison.write_sheet(tmp_path / "sheet.png")
    comparison.write_video(tmp_path / "both.mp4")
    sheet_HWC = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet_HWC.shape[0] >= 3 * inputs * height
    info = probe((tmp_path / "both.mp4").read_bytes(), "both.mp4")
    assert (info.frames, info.fps) == (16, pytest.approx(7))
    assert info.height >= inputs * height
