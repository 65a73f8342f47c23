"""The order is a pure function of the seed: no rank, worker, batch or restart changes what a position holds."""

from __future__ import annotations

import io
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from svdtrain.data.buckets import Sampling, lanes_of
from svdtrain.data.clip import Shard
from svdtrain.data.loading import ClipLoader, GlobalBatches
from svdtrain.data.order import BatchOrder
from svdtrain.data.shards import index_rows, index_shard, write_samples, write_shard
from svdtrain.data.stream import ClipStream, Loaded, Slot, load_item
from svdtrain.data.table import ClipTable, TableBuilder
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch
from tests.data.videos import number_of, picture, shard, video

SAMPLING = Sampling(frames=4, height=32, width=48, fps=None, motion_bucket=None)


def table_of(*paths: Path) -> ClipTable:
    builder = TableBuilder()
    for path in paths:
        builder.add(Shard(path), index_rows(Shard(path), stills=True))
    return builder.table()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return table_of(shard(tmp_path_factory.mktemp("shards") / "a.tar", 7, frames=9))


def stream_of(
    clips: ClipTable, *, seed: int = 3, skip: bool = False, workers: int = 0, flip: bool = True
) -> ClipStream:
    lanes = lanes_of(clips, SAMPLING, buckets=True)
    return ClipStream(clips, lanes, seed, flip=flip, workers=workers, skip=skip)


def order_of(stream: ClipStream, size: int) -> BatchOrder:
    clips = stream.clips
    return BatchOrder(clips.shard_N, stream.lanes.lane_N, clips.source_N, seed=stream.seed, window=2, batch=size)


def read(
    clips: ClipTable,
    *,
    world: int = 1,
    size: int = 4,
    workers: int = 0,
    first: int = 0,
    total: int = 5,
    skip: bool = False,
    notes: list[Loaded] | None = None,
) -> list[ClipBatch]:
    """Global batches, put together from the parts of every rank."""
    stream = stream_of(clips, workers=workers, skip=skip)
    note = (lambda _: None) if notes is None else notes.append
    ranks: list[list[ClipBatch]] = []
    for rank in range(world):
        batches = GlobalBatches(order_of(stream, size), rank=rank, world=world, first=first, total=total)
        ranks.append(list(ClipLoader(stream, batches, workers=workers, note=note)))
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


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 3), (2, 0), (2, 2), (4, 1), (4, 3), (8, 0), (8, 2)])
def test_global_batches_do_not_depend_on_ranks_or_workers(clips: ClipTable, world: int, workers: int) -> None:
    batches = read(clips, world=world, size=8, workers=workers, total=3)
    expected = read(clips, size=8, total=3)
    for batch, want in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels_BTCHW, want.pixels_BTCHW)
        assert (batch.keys_B, batch.positions_B) == (want.keys_B, want.positions_B)
    assert [position for batch in batches for position in batch.positions_B] == list(range(24))


def test_batches_straddle_epochs_without_a_drop_or_a_repeat(clips: ClipTable) -> None:
    keys = [key.split("@")[0] for batch in read(clips, world=1, size=4, workers=0, total=7) for key in batch.keys_B]
    for epoch in range(4):
        assert sorted(keys[epoch * 7 : epoch * 7 + 7]) == [clip.key for clip in clips]


@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_a_later_start_goes_on_with_the_same_batches(clips: ClipTable, first: int) -> None:
    whole = read(clips, world=1, size=4, workers=0)
    assert [b.keys_B for b in read(clips, world=2, size=4, workers=0, first=first)] == [b.keys_B for b in whole[first:]]


def test_equal_keys_mean_equal_pixels_and_the_key_says_what_chose_them(clips: ClipTable) -> None:
    seen: dict[str, torch.Tensor] = {}
    stream = stream_of(clips[:2], seed=0)
    for item in (stream[Slot(position, position % 2)] for position in range(200)):
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
    with pytest.raises(DataError) as caught:
        read(table_of(tmp_path / "a.tar"), size=2, workers=workers, total=1)
    assert caught.value.message == f"clip 'bad' in {tmp_path / 'a.tar'} is no video: it starts with b'I am a text, not'"
    assert caught.value.hint


def test_odd_sizes_work(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [("k", video(height=47, width=65, pixels="yuv444p", frames=6), {})])
    (clip,) = index_shard(tmp_path / "a.tar")
    assert load_item(clip, SAMPLING, 0).pixels_TCHW.shape == (4, 3, 32, 48)


def test_the_stream_crosses_processes_and_counts_its_time(clips: ClipTable) -> None:
    stream = stream_of(clips, workers=2)
    batches = GlobalBatches(order_of(stream, 2), total=4)
    spawned = ClipLoader(stream, batches, workers=2, multiprocessing_context="spawn")
    keys = [batch.keys_B for batch in spawned]
    assert keys == [batch.keys_B for batch in read(clips, size=2, total=4)]
    assert (stream.seconds_by_worker > 0).all()
    assert len(pickle.dumps(stream.clips)) < 5000


def png(number: int, height: int = 40, width: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number, height, width)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    """Videos of two buckets and of none, and stills."""
    builder, folder = TableBuilder(), tmp_path_factory.mktemp("mixed")
    for number in range(3):
        path = folder / f"{number}.tar"
        samples: list[tuple[str, dict[str, bytes]]] = [
            (f"{number}-video-{n}", {"mp4": video(frames=9), "txt": f"words {n}".encode()}) for n in range(5)
        ]
        samples += [(f"{number}-still-{n}", {"png": png(n)}) for n in range(3)]
        write_samples(path, samples)
        rows = index_rows(Shard(path), stills=True)
        for n, row in enumerate(rows[:4]):
            row["bucket"] = ((32, 32, 4), (16, 32, 6))[n % 2]
        builder.add(Shard(path), rows)
    return builder.table()


def test_a_batch_holds_one_bucket_and_stills_stand_alone(mixed: ClipTable) -> None:
    batches = read(mixed, size=4, total=60)
    shapes = Counter(tuple(batch.pixels_BTCHW.shape[1:]) for batch in batches)
    assert sorted(shapes) == [(1, 3, 32, 48), (4, 3, 32, 32), (4, 3, 32, 48), (6, 3, 16, 32)]
    for batch in batches:
        assert len({"still" in key for key in batch.keys_B}) == 1
        assert ("still" in batch.keys_B[0]) == (batch.pixels_BTCHW.shape[1] == 1)
    counts = Counter(key.split("@")[0] for batch in batches for key in batch.keys_B)
    assert len(counts) == len(mixed)
    assert max(counts.values()) - min(counts.values()) <= 2, "all clips come equally often, up to those that wait"
    again = read(mixed, size=4, first=17, total=23, world=4, workers=2)
    assert [(b.keys_B, b.positions_B) for b in again] == [(b.keys_B, b.positions_B) for b in batches[17:23]]


def test_a_still_is_its_picture(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.tar", [("a", {"png": png(300, 64, 96)}), ("b", {"png": b"no picture"})])
    good, bad = table_of(tmp_path / "a.tar")
    item = load_item(good, Sampling(1, 64, 96, None, None), 0)
    assert item.pixels_TCHW.shape == (1, 3, 64, 96)
    assert np.array_equal(((item.pixels_TCHW[0].permute(1, 2, 0) + 1) * 127.5).round(), picture(300, 64, 96))
    with pytest.raises(DataError, match=r"clip 'b' in .*a\.tar is no picture: it starts with b'no picture'"):
        load_item(bad, Sampling(1, 64, 96, None, None), 0)


CAPTIONS: list[tuple[dict[str, bytes], str, str]] = [
    ({"txt": "  naïve\n".encode()}, "", "naïve"),
    ({"txt": b"\xef\xbb\xbfmarked"}, "", "marked"),
    ({"txt": b"a fox"}, "sks", "sks a fox"),
    ({"txt": b"sks, a fox"}, "sks", "sks, a fox"),
    ({"txt": b"sksa fox"}, "sks", "sks sksa fox"),
    ({"txt": b""}, "sks", "sks"),
    ({}, "sks", "sks"),
    ({"json": json.dumps({"caption": "from json"}).encode(), "txt": b"other"}, "", "from json"),
]


@pytest.mark.parametrize(("members", "trigger", "caption"), CAPTIONS)
def test_captions(tmp_path: Path, members: dict[str, bytes], trigger: str, caption: str) -> None:
    write_samples(tmp_path / "a.tar", [("a", {"mp4": video(frames=4), **members})])
    (clip,) = table_of(tmp_path / "a.tar")
    sampling = Sampling(4, 32, 48, None, None, captions=True, trigger=trigger)
    assert load_item(clip, sampling, 0).caption == caption
    assert load_item(clip, SAMPLING, 0).caption == ""


@pytest.mark.parametrize("members", [{"txt": b" \n"}, {}])
def test_a_model_that_reads_text_is_told_of_a_clip_without_any(tmp_path: Path, members: dict[str, bytes]) -> None:
    write_samples(tmp_path / "a.tar", [("a", {"mp4": video(frames=4), **members})])
    (clip,) = table_of(tmp_path / "a.tar")
    with pytest.raises(DataError, match="clip 'a' in .*a.tar has no caption") as caught:
        load_item(clip, Sampling(4, 32, 48, None, None, captions=True), 0)
    assert caught.value.reason == "no_caption"


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"caf\xe9", "is not UTF-8: byte 3 is 0xe9"), (b"x" * 65_537, "has 65,537 bytes")],
)
def test_a_bad_caption_matters_only_where_captions_are_read(tmp_path: Path, text: bytes, said: str) -> None:
    write_samples(tmp_path / "a.tar", [("a", {"mp4": video(frames=4), "txt": text})])
    (clip,) = table_of(tmp_path / "a.tar")
    assert load_item(clip, SAMPLING, 0).key
    with pytest.raises(DataError) as caught:
        load_item(clip, Sampling(4, 32, 48, None, None, captions=True), 0)
    assert caught.value.message == f"the caption of clip 'a' in {tmp_path / 'a.tar'} {said}"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    """Twelve clips of which two cannot be used."""
    path = tmp_path_factory.mktemp("faulty") / "a.tar"
    good = video(frames=9)
    bad = {3: b"I am a text, not a video", 7: video(frames=2)}
    write_shard(path, [(f"clip-{n}", bad.get(n, good), {}) for n in range(12)])
    return table_of(path)


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 0), (4, 2)])
def test_bad_samples_are_replaced_alike_everywhere(faulty: ClipTable, world: int, workers: int) -> None:
    notes: list[Loaded] = []
    expected = read(faulty, size=4, total=9, skip=True, notes=notes)
    bad = sorted(sample for note in notes for sample in note.bad)
    assert Counter(sample.key for sample in bad) >= Counter({"clip-3": 3, "clip-7": 3})
    others: list[Loaded] = []
    batches = read(faulty, size=4, total=9, skip=True, world=world, workers=workers, notes=others)
    assert [(b.keys_B, b.positions_B) for b in batches] == [(b.keys_B, b.positions_B) for b in expected]
    assert sorted(sample for note in others for sample in note.bad) == bad
    assert [position for batch in batches for position in batch.positions_B] == list(range(36))
    seen = {key.split("@")[0] for batch in batches for key in batch.keys_B}
    assert seen == {f"clip-{n}" for n in range(12)} - {"clip-3", "clip-7"}
    assert all(batch.pixels_BTCHW.shape == (4, 4, 3, 32, 48) for batch in batches)


def test_reserves_are_of_the_lane_and_differ_by_position_and_attempt(mixed: ClipTable) -> None:
    stream = stream_of(mixed)
    for clip in range(len(mixed)):
        drawn = [stream.reserve(Slot(position, clip), attempt) for position in range(30) for attempt in range(3)]
        alike = set(np.flatnonzero(stream.lanes.lane_N == stream.lanes.lane_N[clip]).tolist())
        assert set(drawn) == alike
        assert drawn[:30] != drawn[30:60]
        assert drawn[::3] != drawn[1::3]


def test_only_bad_samples_end_in_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [("a", b"no video", {}), ("b", b"none either", {})])
    with pytest.raises(DataError, match=r"^100 clips in a row could not be used, the last: clip '.' in .* is no video"):
        read(table_of(tmp_path / "a.tar"), size=2, total=1, skip=True, workers=1)
