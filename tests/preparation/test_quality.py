"""Quality: each measure sees its own fault in a clip, and no other measure does."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.generation.video_files import encode_mp4
from svdtrain.preparation.quality import Quality, measure

FRAMES, HEIGHT, WIDTH = 12, 90, 160


def good() -> np.ndarray:
    """uint8 [T, H, W, 3]: a mid-grey texture that moves."""
    rough = np.random.default_rng(0).integers(40, 216, (HEIGHT // 2, WIDTH), np.uint8)
    texture_HWC = rough.repeat(2, axis=0)[..., None].repeat(3, axis=2)
    return np.stack([np.roll(texture_HWC, time, axis=1) for time in range(FRAMES)])


def with_bars(top: int, bottom: int, left: int, right: int, level: int = 0) -> np.ndarray:
    clip_THWC = np.full((FRAMES, HEIGHT, WIDTH, 3), level, np.uint8)
    clip_THWC[:, top : HEIGHT - bottom, left : WIDTH - right] = good()[:, top : HEIGHT - bottom, left : WIDTH - right]
    return clip_THWC


def coded(clip_THWC: np.ndarray) -> np.ndarray:
    """The clip after lossy coding, as prepare sees it."""
    data = encode_mp4(clip_THWC, 12)
    return decode_frames(data, range(len(clip_THWC)), "clip", probe(data, "clip"))


def test_a_good_clip_has_no_fault() -> None:
    found = measure(coded(good()))
    assert found.blur > 500
    assert replace(found, blur=0.0) == Quality(0.0, 0.0, 0.0, 0.0, (0, 0, 0, 0))


def test_blur_lowers_the_measure_in_order() -> None:
    blurs = [measure(np.stack([cv2.GaussianBlur(f, (0, 0), s) for f in good()])).blur for s in (0.3, 1, 2, 4)]
    assert blurs == sorted(blurs, reverse=True)
    assert blurs[-1] < 0.05 * blurs[0]


def test_blur_of_a_large_picture_is_taken_at_a_set_size() -> None:
    large, larger = (good()[:1].repeat(zoom, axis=1).repeat(zoom, axis=2) for zoom in (5, 15))
    assert measure(larger).blur == pytest.approx(measure(large).blur, rel=0.1)


@pytest.mark.parametrize("bars", [(12, 12, 0, 0), (0, 0, 20, 20), (10, 0, 6, 4), (8, 14, 30, 2)])
def test_bars_are_found_to_the_pixel_and_left_out_of_the_rest(bars: tuple[int, int, int, int]) -> None:
    found = measure(with_bars(*bars))
    assert found.letterbox == bars
    assert (found.exposure_clipped, found.black) == (0.0, 0.0)


def test_bars_survive_coding_and_dark_grey() -> None:
    assert measure(coded(with_bars(16, 16, 0, 0))).letterbox == (16, 16, 0, 0)
    assert measure(with_bars(16, 16, 0, 0, level=14)).letterbox == (16, 16, 0, 0)


def test_a_bar_that_one_frame_breaks_is_none() -> None:
    clip_THWC = with_bars(16, 16, 0, 0)
    clip_THWC[-1, :16] = 120
    assert measure(clip_THWC).letterbox == (0, 16, 0, 0)


def test_a_light_in_the_night_is_no_letterbox() -> None:
    night_THWC = np.full((FRAMES, HEIGHT, WIDTH, 3), 5, np.uint8)
    night_THWC[:, 40:55, 70:95] = 200
    found = measure(night_THWC)
    assert (found.letterbox, found.black) == ((0, 0, 0, 0), 0.0)


@pytest.mark.parametrize(("black", "share"), [(0, 0.0), (3, 0.25), (12, 1.0)])
def test_black_is_the_share_of_frames(black: int, share: float) -> None:
    clip_THWC = good()
    clip_THWC[:black] = 6
    found = measure(clip_THWC)
    assert found.letterbox == (0, 0, 0, 0)
    assert found.black == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("level", [0, 255])
def test_clipped_is_the_share_of_pixels(level: int) -> None:
    clip_THWC = good()
    clip_THWC[:, 20:56] = level  # 40 % of the rows
    assert measure(clip_THWC).exposure_clipped == pytest.approx(0.4)


@pytest.mark.parametrize(("held", "share"), [(1, 0.0), (4, 3 / 11), (12, 1.0)])
def test_frozen_is_the_share_of_steps_and_survives_coding(held: int, share: float) -> None:
    clip_THWC = good()
    clip_THWC[:held] = clip_THWC[0]
    assert measure(coded(clip_THWC)).frozen == pytest.approx(share, abs=1e-4)


def test_a_small_thing_on_a_still_ground_is_no_freeze() -> None:
    clip_THWC = np.full((FRAMES, 720, 1280, 3), 90, np.uint8)
    for time in range(FRAMES):
        clip_THWC[time, 300:310, 40 * time : 40 * time + 10] = 200
    assert measure(clip_THWC).frozen == 0.0


def test_a_still_is_measured() -> None:
    assert measure(good()[:1]).frozen == 0.0
