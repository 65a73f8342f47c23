"""Distances of sets of embeddings against the definition, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.evaluation.embeddings import cmmd, temporal_consistency
from svdtrain.evaluation.intervals import Estimate, interval

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.normal(size=(24, 4, 16)) + 3 * np.eye(16)[0]


def by_definition(one_NKD: np.ndarray, other_NKD: np.ndarray) -> float:
    one, other = (a.reshape(-1, 16) / np.linalg.norm(a.reshape(-1, 16), axis=1)[:, None] for a in (one_NKD, other_NKD))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.exp(-np.sum((x - y) ** 2) / 200) for y in b] for x in a]))

    return 1000 * (kernel(one, one) + kernel(other, other) - 2 * kernel(one, other))


def distance(videos_NKD: np.ndarray, reference_NKD: np.ndarray = REFERENCE) -> Estimate:
    value, draws_D = cmmd(videos_NKD, reference_NKD)
    return interval(value, draws_D, len(reference_NKD))


def test_cmmd_is_its_definition() -> None:
    other = REFERENCE + np.eye(16)[1]
    assert distance(other).value == pytest.approx(by_definition(other, REFERENCE), rel=1e-9)
    assert distance(7 * other).value == pytest.approx(distance(other).value, rel=1e-9), "only directions count"


def test_a_set_is_at_no_distance_from_itself_in_any_order() -> None:
    assert distance(REFERENCE).value == pytest.approx(0, abs=1e-9)
    assert distance(REFERENCE[::-1]).value == pytest.approx(0, abs=1e-9)


def test_it_orders_sets_and_says_how_sure_it_is() -> None:
    noise = RANDOM.normal(size=REFERENCE.shape) * 0.1
    near, far = distance(REFERENCE + noise), distance(REFERENCE + noise + 2 * np.eye(16)[1])
    assert near.high is not None
    assert far.surely_above(near.high)
    assert far.low is not None
    assert far.high is not None
    assert far.low < far.value < far.high < 2 * far.low
    assert distance(REFERENCE[:1], REFERENCE[:1]).low is None


def test_consistency_is_the_mean_cosine_of_neighbours() -> None:
    turning = np.array([[np.cos(a), np.sin(a)] for a in np.deg2rad([0, 60, 60, 150])]) * [[1], [2], [3], [4]]
    assert temporal_consistency(turning) == pytest.approx((0.5 + 1 + 0) / 3, abs=1e-12)
    assert temporal_consistency(turning[:1]) is None
