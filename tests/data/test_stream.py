"""The order is a pure function of the seed: no rank, worker, batch or restart changes what a position holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from svdtrain.data.clip import Clip
from svdtrain.data.shards import index_shard, write_shard
from svdtrain.data.stream import ClipLoader, ClipOrder, ClipStream, GlobalBatches, Sampling, collate, load_item
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch
from tests.data.videos import number_of, shard, video

SAMPLING = Sampling(frames=4, height=32, width=48, fps=None, motion_bucket=None)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return index_shard(shard(tmp_path_factory.mktemp("shards") / "a.tar", 7, frames=9))


def read(clips: list[Clip], *, world: int, size: int, workers: int, first: int = 0, total: int = 5) -> list[ClipBatch]:
    """Global batches, put together from the parts of every rank."""
    stream = ClipStream(clips, SAMPLING, 3, flip=True, workers=workers)
    ranks = []
    for rank in range(world):
        batches = GlobalBatches(size // world, rank=rank, world=world, first=first, total=total)
        ranks.append(list(ClipLoader(stream, batch_sampler=batches, num_workers=workers, collate_fn=collate)))
    return [
        ClipBatch(
            torch.cat([part.pixels_BTCHW for part in parts]),
            torch.cat([part.fps_B for part in parts]),
            torch.cat([part.motion_bucket_B for part in parts]),
            tuple(key for part in parts for key in part.keys_B),
            tuple(position for part in parts for position in part.positions_B),
        )
        for parts in zip(*ranks, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_epoch_is_a_permutation_and_they_differ(count: int, seed: int) -> None:
    order = ClipOrder(count, seed)
    epochs = [[order.clip_at(epoch * count + place) for place in range(count)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count == 100:
        assert len({tuple(epoch) for epoch in epochs}) == 4
        assert [ClipOrder(count, seed + 1).clip_at(place) for place in range(count)] != epochs[0]
    assert [ClipOrder(count, seed).clip_at(p) for p in reversed(range(4 * count))] == sum(epochs, [])[::-1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_global_batches_do_not_depend_on_ranks_or_workers(clips: list[Clip], world: int, workers: int) -> None:
    batches = read(clips, world=world, size=4, workers=workers)
    expected = read(clips, world=1, size=4, workers=0)
    for batch, want in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels_BTCHW, want.pixels_BTCHW)
        assert (batch.keys_B, batch.positions_B) == (want.keys_B, want.positions_B)
    assert [position for batch in batches for position in batch.positions_B] == list(range(20))


def test_batches_straddle_epochs_without_a_drop_or_a_repeat(clips: list[Clip]) -> None:
    keys = [key.split("@")[0] for batch in read(clips, world=1, size=4, workers=0, total=7) for key in batch.keys_B]
    for epoch in range(4):
        assert sorted(keys[epoch * 7 : epoch * 7 + 7]) == [clip.key for clip in clips]


@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_a_later_start_goes_on_with_the_same_batches(clips: list[Clip], first: int) -> None:
    whole = read(clips, world=1, size=4, workers=0)
    assert [b.keys_B for b in read(clips, world=2, size=4, workers=0, first=first)] == [b.keys_B for b in whole[first:]]


def test_equal_keys_mean_equal_pixels_and_the_key_says_what_chose_them(clips: list[Clip]) -> None:
    seen: dict[str, torch.Tensor] = {}
    stream = ClipStream(clips[:2], SAMPLING, 0, flip=True)
    for item in (stream[position] for position in range(200)):
        assert torch.equal(seen.setdefault(item.key, item.pixels_TCHW), item.pixels_TCHW)
        key, choice = item.key.split("@")
        start, flip = (float(part.split("=")[1]) for part in choice.split(","))
        pixels = item.pixels_TCHW.flip(-1) if flip else item.pixels_TCHW
        numbers = [number_of((frame.permute(1, 2, 0).numpy() + 1) * 127.5) for frame in pixels]
        assert numbers == [round(start * 25) + step for step in range(4)]
        assert key in (clips[0].key, clips[1].key)
    assert len({key.split("@")[1] for key in seen}) == 12, "six starts, flipped or not"


@pytest.mark.parametrize(
    ("metadata", "asked", "bucket"),
    [({"motion_bucket_id": 30}, None, 30), ({}, None, 127), ({}, 5, 5), ({"motion_bucket_id": 30}, 5, 5)],
)
def test_motion_bucket_and_rate(tmp_path: Path, metadata: dict[str, int], asked: float | None, bucket: float) -> None:
    write_shard(tmp_path / "a.tar", [("k", video(frames=30, fps=24), metadata)])
    (clip,) = index_shard(tmp_path / "a.tar")
    own = load_item(clip, Sampling(4, 32, 48, None, asked), 0)
    slow = load_item(clip, Sampling(4, 32, 48, 8, asked), 0)
    assert (own.fps, slow.fps, own.motion_bucket) == (24, 8, bucket)
    numbers = [number_of((frame.permute(1, 2, 0).numpy() + 1) * 127.5) for frame in slow.pixels_TCHW]
    assert numbers == [0, 3, 6, 9]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_clip_stops_the_run_in_one_line(tmp_path: Path, workers: int) -> None:
    write_shard(tmp_path / "a.tar", [("good", video(frames=9), {}), ("bad", b"I am a text, not a video", {})])
    stream = ClipStream(index_shard(tmp_path / "a.tar"), SAMPLING, 0, flip=False, workers=workers)
    batches = GlobalBatches(2, total=1)
    with pytest.raises(DataError) as caught:
        list(ClipLoader(stream, batch_sampler=batches, num_workers=workers, collate_fn=collate))
    assert caught.value.message == f"clip 'bad' in {tmp_path / 'a.tar'} is no video: it starts with b'I am a text, not'"
    assert caught.value.hint


def test_odd_sizes_work(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [("k", video(height=47, width=65, pixels="yuv444p", frames=6), {})])
    (clip,) = index_shard(tmp_path / "a.tar")
    assert load_item(clip, SAMPLING, 0).pixels_TCHW.shape == (4, 3, 32, 48)


def test_the_stream_crosses_processes_and_counts_its_time(clips: list[Clip]) -> None:
    stream = ClipStream(clips, SAMPLING, 3, flip=True, workers=2)
    batches = GlobalBatches(2, total=4)
    spawned = ClipLoader(
        stream, batch_sampler=batches, num_workers=2, collate_fn=collate, multiprocessing_context="spawn"
    )
    keys = [batch.keys_B for batch in spawned]
    assert keys == [batch.keys_B for batch in read(clips, world=1, size=2, workers=0, total=4)]
    assert (stream.seconds_by_worker > 0).all()
    assert len(pickle.dumps(stream.clips)) < 5000
