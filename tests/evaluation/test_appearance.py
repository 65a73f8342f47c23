"""First frame, style, colour drift and copying of synthetic pictures, by formulas of their own."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.evaluation.appearance import (
    colour_drift,
    first_frame_similarity,
    nearest_training_frame,
    style_distance,
    thumbnails,
)
from tests.evaluation.videos import flat, panning, texture


def test_ssim_is_one_of_the_same_picture_and_falls_with_noise() -> None:
    picture = texture()
    noise = np.random.default_rng(0).normal(0, 10, picture.shape)
    slightly, much = ((picture + k * noise).clip(0, 255).astype(np.uint8) for k in (0.3, 3))
    found = [first_frame_similarity(other, picture) for other in (picture, slightly, much)]
    assert found[0] == pytest.approx(1.0, abs=1e-12)
    assert 0.9 < found[1] < 0.999
    assert found[2] < 0.6


def test_ssim_of_flat_pictures_is_its_formula() -> None:
    """Without variance, SSIM is its luminance term: (2 a b + c) / (a^2 + b^2 + c), c = 0.01^2."""
    a, b, c = 100 / 255, 150 / 255, 1e-4
    found = first_frame_similarity(flat((100, 100, 100))[0], flat((150, 150, 150))[0])
    assert found == pytest.approx((2 * a * b + c) / (a * a + b * b + c), rel=1e-6)


def test_style_does_not_ask_where_things_are() -> None:
    still, panned, turned = panning(3, 0), panning(3, 5), panning(3, 0)[:, ::-1, ::-1]
    other = panning(3, 0, seed=7) // 2
    assert style_distance(still, still) == 0
    assert style_distance(still, panned) < 0.3
    assert style_distance(still, turned) < 0.1
    assert style_distance(still, other) > 3


def test_style_distance_of_greys_is_their_difference_in_lightness() -> None:
    """Lightness is 116 y^(1/3) - 16 of linear y; colours and edges are equal: a quarter of the four."""

    def lightness(grey: int) -> float:
        return 116 * (((grey / 255 + 0.055) / 1.055) ** 2.4) ** (1 / 3) - 16

    found = style_distance(flat((200, 200, 200)), flat((100, 100, 100)))
    assert found == pytest.approx((lightness(200) - lightness(100)) / 4, rel=0.01)


def test_style_sees_edges() -> None:
    """Two patterns of the very same greys: nothing but edges differs."""
    soft, sharp = (texture(soft=width)[..., 0].ravel() for width in (6, 1))
    alike = np.empty_like(soft)
    alike[np.argsort(soft)] = np.sort(sharp)
    one, other = (np.repeat(grey.reshape(1, 72, 128, 1), 3, axis=3) for grey in (sharp, alike))
    assert np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
    assert style_distance(one, other) > 0.5


@pytest.mark.parametrize("step", [-2, 0, 3])
def test_drift_is_how_far_colour_has_moved(step: int) -> None:
    video = flat(*[(100 + step * t, 100 + step * t, 100 + step * t) for t in range(8)])
    assert colour_drift(video) == pytest.approx(abs(step) * 7 * 100 / 255, abs=1e-9)


def test_what_swings_back_is_no_drift_and_one_colour_is_a_third_of_the_square() -> None:
    assert colour_drift(flat(*[(100 + 20 * (t % 2), 100, 100) for t in range(9)])) == pytest.approx(0, abs=1e-9)
    red = flat(*[(100 + 3 * t, 100, 100) for t in range(8)])
    assert colour_drift(red) == pytest.approx(21 * 100 / 255 / 3**0.5, rel=1e-9)


def test_a_copy_is_at_no_distance_from_its_training_frame() -> None:
    training = np.concatenate([thumbnails(panning(6, 2, seed=seed)) for seed in range(5)])
    assert training.shape == (30, 768)
    copy, new = panning(6, 2, seed=3), panning(6, 2, seed=9)
    copy[0] = new[0]  # the first frame is given
    assert nearest_training_frame(thumbnails(copy), training) == pytest.approx(0, abs=0.05)
    assert nearest_training_frame(thumbnails(new), training) > 5


def test_the_distance_is_the_root_mean_square() -> None:
    training = thumbnails(flat((50, 50, 50), (250, 250, 250)))
    found = nearest_training_frame(thumbnails(flat((0, 0, 0), (60, 60, 60), (220, 220, 220))), training)
    assert found == pytest.approx(100 / 255 * (10 + 30) / 2, rel=1e-3)
