"""Movement of synthetic videos: speed, direction and flicker are what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.evaluation.flow import flicker, flow_of, motion, motion_direction, motion_response
from tests.evaluation.videos import panning, texture


@pytest.mark.parametrize(("right", "down"), [(1.5, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.9, 1.2), (0.0, 0.0)])
def test_motion_is_the_speed_of_a_pan(right: float, down: float) -> None:
    speed = motion(flow_of(panning(4, right, down)), fps=8)
    assert speed == pytest.approx(100 * np.hypot(right, down) / 128 * 8, rel=0.12, abs=0.02)


def test_motion_does_not_depend_on_size() -> None:
    small = panning(3, 1.0)
    large = small.repeat(4, 1).repeat(4, 2)
    assert motion(flow_of(large), 8) == pytest.approx(motion(flow_of(small), 8), rel=0.1)


@pytest.mark.parametrize("moving", [0, 2])
def test_noise_on_smooth_ground_is_no_motion(moving: int) -> None:
    """A square on a soft slope, still or two pixels a frame to the right, each frame with noise of its own."""
    slope_HW = np.linspace(90, 130, 64)[:, None] + np.zeros((64, 64))
    frames = np.repeat(np.stack([slope_HW] * 5)[..., None], 3, axis=3)
    frames += np.random.default_rng(0).normal(0, 2, frames.shape)
    for t in range(5):
        frames[t, 24:40, 10 + moving * t : 26 + moving * t] = texture(16, 16, soft=2)
    speed = motion(flow_of(frames.round().clip(0, 255).astype(np.uint8)), 8)
    assert speed == pytest.approx(100 * moving / 64 * 8, rel=0.25, abs=2.0), "11 with every place alike"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((1, 0), (2, 0), 1.0), ((1, 0), (-1, 0), -1.0), ((1, 0), (0, 1), 0.0), ((1, 0), (1, 1), 0.707)],
)
def test_direction_is_the_cosine_of_two_pans(one: tuple[int, int], other: tuple[int, int], expected: float) -> None:
    found = motion_direction(flow_of(panning(4, *one)), flow_of(panning(4, *other, seed=1)))
    assert found == pytest.approx(expected, abs=0.12)


def test_what_does_not_move_has_no_direction() -> None:
    assert motion_direction(flow_of(panning(4, 0)), flow_of(panning(4, 1))) is None


def test_flicker_is_what_does_not_move_along() -> None:
    moving = panning(6, 1.5)
    blinking = np.clip(moving + np.array([0, 20, 0, 20, 0, 20])[:, None, None, None], 0, 255).astype(np.uint8)
    calm, blinks = flicker(flow_of(moving)), flicker(flow_of(blinking))
    assert calm is not None
    assert blinks is not None
    plain = float(np.abs(np.diff(moving.astype(float), axis=0)).mean()) * 100 / 255
    assert calm < plain / 5, "a pan is no flicker"
    assert blinks == pytest.approx(100 * 20 / 255, rel=0.1)


def test_flicker_leaves_out_what_comes_into_sight() -> None:
    """A square passes over a ground: what it lays bare cannot be moved back."""
    ground, square = texture(seed=3), texture(40, 40, seed=4)
    frames = np.stack([ground] * 5)
    for t in range(5):
        frames[t, 16:56, 6 + 8 * t : 46 + 8 * t] = square
    assert (flicker(flow_of(frames)) or 1) < 0.2, "0.33 with what cannot be seen in both"


def test_the_response_is_the_slope() -> None:
    assert motion_response(np.array([60.0, 127, 200]), np.array([6.0, 12.7, 20.0])) == pytest.approx(10.0, rel=1e-9)
    assert motion_response(np.array([60.0, 127, 200]), np.array([5.0, 5.0, 5.0])) == pytest.approx(0.0, abs=1e-9)
