"""Batches are a pure function of seed and clips: exact epochs, exact shares, one lane per batch, entered anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdtrain.data import order as orders
from svdtrain.data.order import BatchOrder, Interleave, SourceOrder
from svdtrain.foundation.errors import UsageError

FEW = settings(max_examples=60, deadline=None)


def order_of(
    clips: list[tuple[int, int, int]],
    *,
    batch: int,
    weights: tuple[float, ...] = (1.0,),
    seed: int = 0,
    window: int = 2,
) -> BatchOrder:
    """clips: (source, shard, lane) of each."""
    sources, shards, lanes = np.array(sorted(clips)).T
    return BatchOrder(shards, lanes, sources, weights=weights, seed=seed, window=window, batch=batch)


def first_batches(order: BatchOrder, count: int, first: int = 0) -> list[tuple[int, ...]]:
    return [tuple(batch.tolist()) for batch in islice(order.batches(first), count)]


@pytest.fixture(scope="module", autouse=True)
def short_stretches() -> Iterator[None]:
    """The order is worked out in stretches: of a few clips, so that a case crosses many of their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "STRETCH", 50)
        yield


@st.composite
def cases(draw: st.DrawFn) -> tuple[BatchOrder, BatchOrder]:
    """The same order twice: neither may depend on what the other was asked."""
    weights = tuple(draw(st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=3)))
    one = st.tuples(st.integers(0, len(weights) - 1), st.integers(0, 5), st.integers(0, 2))
    clips = draw(st.lists(one, min_size=1, max_size=40)) + [(source, 0, 0) for source in range(len(weights))]
    clips = [(source, shard + 6 * source, lane) for source, shard, lane in clips]
    seed, window, batch = draw(st.integers(0, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    a, b = (order_of(clips, batch=batch, weights=weights, seed=seed, window=window) for _ in range(2))
    return a, b


@FEW
@given(cases(), st.integers(0, 60))
def test_batches_from_anywhere_are_the_same_batches(case: tuple[BatchOrder, BatchOrder], first: int) -> None:
    whole, late = case
    assert first_batches(late, 4, first) == first_batches(whole, first + 4)[first:]


@FEW
@given(cases())
def test_a_batch_is_of_one_lane_and_each_lane_keeps_its_order(case: tuple[BatchOrder, BatchOrder]) -> None:
    order, again = case
    batches = first_batches(order, 30)
    assert all(len(batch) == order.batch and len(set(order.lanes_N[list(batch)])) == 1 for batch in batches)
    came = again.clips(0, 31 * order.batch * order.lanes).tolist()
    for lane in range(order.lanes):
        handed = [clip for batch in batches for clip in batch if order.lanes_N[clip] == lane]
        assert handed == [clip for clip in came if order.lanes_N[clip] == lane][: len(handed)]
    # None is lost: what came and was not handed out waits in some queue, which is not full.
    waiting = Counter(came[: 30 * order.batch])
    waiting.subtract(Counter(clip for batch in batches for clip in batch))
    assert sum(count for count in waiting.values() if count > 0) <= order.lanes * (order.batch - 1)


@FEW
@given(cases())
def test_every_epoch_of_every_source_is_a_permutation(case: tuple[BatchOrder, BatchOrder]) -> None:
    order, _ = case
    for source in order.sources:
        places = source.take(np.arange(3 * len(source)))
        for epoch in range(3):
            assert sorted(places[epoch * len(source) : (epoch + 1) * len(source)]) == source.clips_N.tolist()
        assert (source.take(np.arange(3 * len(source))[::-1]) == places[::-1]).all()


@pytest.mark.parametrize("seed", range(3))
def test_epochs_and_seeds_differ(seed: int) -> None:
    def source(seed: int, number: int = 0) -> SourceOrder:
        return SourceOrder(np.arange(100), np.arange(100) // 10, seed=seed, number=number, window=3)

    orders = [source(seed).epoch(0), source(seed).epoch(1), source(seed + 1).epoch(0), source(seed, 1).epoch(0)]
    assert len({tuple(order) for order in orders}) == 4


def test_few_shards_are_open_at_a_time_and_their_clips_are_mixed() -> None:
    source = SourceOrder(np.arange(1000), np.arange(1000) // 50, seed=1, number=0, window=4)
    shards = source.epoch(0) // 50
    windows = [set(shards[start : start + 200]) for start in range(0, 1000, 200)]
    assert [len(window) for window in windows] == [4] * 5
    assert windows[0] != {0, 1, 2, 3}
    assert len(set(shards[:12])) == 4
    assert not (source.epoch(1)[:200] == source.epoch(0)[:200]).all()


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1.0,), [1]), ((0.7, 0.3), [7, 3]), ((2, 1, 1), [2, 1, 1]), ((1.5, 0.25), [6, 1]), ((0.001, 1), [1, 1000])],
)
def test_shares_are_exact_and_even(weights: tuple[float, ...], shares: list[int]) -> None:
    interleave = Interleave(weights)
    assert interleave.shares == shares
    sources, places = interleave.take(0, 3 * interleave.length)
    for number, share in enumerate(shares):
        assert places[sources == number].tolist() == list(range(3 * share))
        for end in range(0, 3 * interleave.length, max(1, interleave.length // 7)):
            assert interleave.taken(end)[number] == (sources[:end] == number).sum()
            assert abs(interleave.taken(end)[number] - end * share / interleave.length) <= len(shares)


def test_weights_that_cannot_be_exact_are_refused() -> None:
    with pytest.raises(UsageError, match="weights 1.0, 1.2345678 repeat only after 11,172,839 clips"):
        Interleave((1.0, 1.2345678))
