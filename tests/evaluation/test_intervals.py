"""Intervals that hold what they promise: as often as they say, narrower for what is paired, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from svdtrain.evaluation.intervals import Estimate, mean_of, ratio_of, resamples


@pytest.mark.parametrize("n", [8, 32])
def test_the_interval_holds_the_truth_as_often_as_it_says(n: int) -> None:
    random = np.random.default_rng(0)
    samples_KN = random.normal(3.0, 2.0, (400, n))
    held = [(e.low or 0) <= 3.0 <= (e.high or 0) for e in map(mean_of, samples_KN)]
    assert 0.91 <= np.mean(held) <= 0.985


def test_a_ratio_is_of_the_same_clips() -> None:
    random = np.random.default_rng(1)
    base_NS = random.lognormal(0, 1.0, (16, 3))
    adapter_NS = base_NS * random.normal(0.8, 0.02, (16, 3))
    ratio = ratio_of(adapter_NS, base_NS)
    assert ratio.value == pytest.approx(float(np.mean(adapter_NS.sum(0) / base_NS.sum(0))), rel=1e-12)
    assert ratio.surely_below(0.83)
    assert ratio.surely_above(0.77)
    shuffled = ratio_of(adapter_NS[::-1], base_NS)
    assert (shuffled.high or 0) - (shuffled.low or 0) > 5 * ((ratio.high or 0) - (ratio.low or 0)), "pairs count"


def test_resamples_draw_n_clips_the_same_way_every_time() -> None:
    counts_DN = resamples(5)
    assert set(counts_DN.sum(1).tolist()) == {5.0}
    assert counts_DN.mean(0) == pytest.approx(np.ones(5), abs=0.1)
    np.random.seed(1)
    resamples.cache_clear()
    assert np.array_equal(resamples(5), counts_DN)


def test_a_single_clip_has_no_interval() -> None:
    assert mean_of(np.array([2.0])) == Estimate(2.0, None, None, 1)
    assert not mean_of(np.array([2.0])).surely_above(0)
