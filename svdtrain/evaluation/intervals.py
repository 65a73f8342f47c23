"""Estimates over clips with bootstrap intervals. What is compared is resampled together: clips differ more than models do.

Intervals are 95 % expanded percentile intervals (Hesterberg 2015, arXiv 1411.5279, section 4.3): plain percentiles of the
bootstrap are too narrow for few clips, by sqrt((n - 1)/n) and by Student's t against the normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np

from svdtrain.foundation.seeding import key_to_seed

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, the ends of its interval (None for a single clip), and of how many clips it is."""

    value: float
    low: float | None
    high: float | None
    n: int

    def surely_above(self, bound: float) -> bool:
        """Whether the whole interval is."""
        return self.low is not None and self.low > bound

    def surely_below(self, bound: float) -> bool:
        """Whether the whole interval is."""
        return self.high is not None and self.high < bound


@lru_cache(maxsize=8)
def resamples(n: int) -> np.ndarray:
    """How often each of n clips is drawn, float64 [draws, n] with rows that sum to n: the same for equal n."""
    random = np.random.default_rng(key_to_seed("bootstrap", n))
    return random.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)


def interval(value: float, draws_D: np.ndarray, n: int) -> Estimate:
    """An estimate from n clips and what it is on resamples of them."""
    if n < 2:
        return Estimate(float(value), None, None, n)
    tail = _tail(n)
    low, high = np.quantile(draws_D, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high), n)


def mean_of(values_N: np.ndarray) -> Estimate:
    """The mean over clips."""
    n = len(values_N)
    return interval(values_N.mean(), resamples(n) @ values_N / n, n)


def ratio_of(over_NS: np.ndarray, under_NS: np.ndarray) -> Estimate:
    """The mean over columns (noise levels) of mean over clips / mean over the same clips."""
    n = len(over_NS)
    counts_DN = resamples(n)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # what is divided by nothing is not finite, and sure of nothing
        draws_DS = (counts_DN @ over_NS) / (counts_DN @ under_NS)
        return interval((over_NS.mean(0) / under_NS.mean(0)).mean(), draws_DS.mean(1), n)


def _tail(n: int) -> float:
    """The percentile at which an interval of n clips ends; Student's t by its expansion in 1/(n - 1) (Abramowitz 26.7.5)."""
    normal = NormalDist()
    z, v = normal.inv_cdf((1 + LEVEL) / 2), n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return normal.cdf(-t * sqrt(n / v))
