"""Distances of sets of embeddings against the definition, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.evaluation.embeddings import cmmd, temporal_consistency

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.normal(size=(24, 4, 16)) + 3 * np.eye(16)[0]


def by_definition(one_NKD: np.ndarray, other_NKD: np.ndarray) -> float:
    one, other = (a.reshape(-1, 16) / np.linalg.norm(a.reshape(-1, 16), axis=1)[:, None] for a in (one_NKD, other_NKD))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.exp(-np.sum((x - y) ** 2) / 200) for y in b] for x in a]))

    return 1000 * (kernel(one, one) + kernel(other, other) - 2 * kernel(one, other))


def test_cmmd_is_its_definition() -> None:
    other = REFERENCE + np.eye(16)[1]
    (found,) = cmmd([other], REFERENCE)
    assert found.value == pytest.approx(by_definition(other, REFERENCE), rel=1e-9)
    assert found.n == 24


def test_a_set_is_at_no_distance_from_itself_and_order_does_not_matter() -> None:
    same, shuffled = cmmd([REFERENCE, REFERENCE[::-1]], REFERENCE)
    assert same.value == pytest.approx(0, abs=1e-9)
    assert shuffled.value == pytest.approx(0, abs=1e-9)


def test_it_orders_sets_and_is_surer_the_farther_they_are() -> None:
    noise = RANDOM.normal(size=REFERENCE.shape) * 0.1
    near, far = cmmd([REFERENCE + noise, REFERENCE + noise + 2 * np.eye(16)[1]], REFERENCE)
    assert near.high is not None
    assert far.surely_above(near.high)
    assert far.low < far.value < far.high  # type: ignore[operator]


def test_the_size_of_embeddings_does_not_matter() -> None:
    assert cmmd([7 * REFERENCE], REFERENCE)[0].value == pytest.approx(0, abs=1e-9)


def test_one_video_has_no_interval() -> None:
    (found,) = cmmd([REFERENCE[:1]], REFERENCE[:1])
    assert (found.low, found.high, found.n) == (None, None, 1)


def test_consistency_is_the_mean_cosine_of_neighbours() -> None:
    turning = np.array([[np.cos(a), np.sin(a)] for a in np.deg2rad([0, 60, 60, 150])]) * [[1], [2], [3], [4]]
    assert temporal_consistency(turning) == pytest.approx((0.5 + 1 + 0) / 3, abs=1e-12)
    assert temporal_consistency(turning[:1]) is None
