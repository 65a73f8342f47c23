"""A table of clips is the list of its rows, in columns: nothing is lost, mixed up, or taken on trust."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdtrain.data.clip import Clip, Place, Shard
from svdtrain.data.index import parse_index
from svdtrain.data.table import Strings, TableBuilder
from svdtrain.foundation.errors import DataError

SHARD = Shard(Path("/data/set/shards/train-000000.tar"))
ROW: dict[str, Any] = {"key": "a", "members": {"mp4": [512, 100], "json": [1024, 20], "txt": [2048, 9]}}
FULL: dict[str, Any] = ROW | {
    "source": "dir/video.mp4",
    "fps": 23.976,
    "frames": 96,
    "height": 576,
    "width": 1024,
    "motion_bucket_id": 127,
    "caption": "naïve “words” \U0001f600",
    "bucket": [576, 1024, 14],
    "sha256": "0123456789abcdef" * 4,
    "verified": True,
    "blur": 3.5,
    "scores": {"key": "another"},
}


def clips_of(*rows: dict[str, Any], shard: Shard = SHARD) -> list[Clip]:
    builder = TableBuilder()
    builder.add(shard, parse_index("\n".join(json.dumps(row) for row in rows).encode(), shard))
    return list(builder.table())


def test_a_row_becomes_its_clip() -> None:
    bare, full = clips_of(ROW, FULL | {"key": "b"})
    assert bare == Clip("a", SHARD, 512, 100, "a", text=Place(2048, 9))
    assert full == Clip(
        key="b",
        shard=SHARD,
        offset=512,
        size=100,
        source="dir/video.mp4",
        fps=23.976,
        frames=96,
        motion_bucket_id=127,
        picture=(576, 1024),
        verified=True,
        bucket=(576, 1024, 14),
        sha256="0123456789abcdef" * 4,
        caption="naïve “words” \U0001f600",
        text=Place(2048, 9),
    )


@pytest.mark.parametrize(
    ("members", "offset", "still"),
    [
        ({"jpg": [0, 1], "mp4": [7, 1]}, 7, False),
        ({"webm": [7, 1], "png": [0, 1]}, 7, False),
        ({"json": [0, 1], "webp": [7, 1]}, 7, True),
        ({"json": [0, 1]}, None, False),
    ],
)
def test_the_video_counts_before_the_picture(members: dict[str, list[int]], offset: int | None, still: bool) -> None:
    found = clips_of(ROW | {"key": "other"}, ROW | {"members": members})[1:]
    assert [(clip.offset, clip.still) for clip in found] == ([] if offset is None else [(offset, still)])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"key": 7}, "key: "),
    ({"members": None}, "members: "),
    ({"members": {"mp4": [512]}}, "members.mp4"),
    ({"members": {"mp4": ["a", 1]}}, "members.mp4.0: "),
    ({"members": {"mp4": [-1, 1]}}, "members.mp4.0: "),
    ({"members": {"mp4": [2**70, 1]}}, "members.mp4.0: "),
    ({"members": {"mp4": [0, 1], "txt": [-5, 1]}}, "members.txt.0: "),
    ({"fps": "fast"}, "fps: "),
    ({"fps": 0}, "fps: "),
    ({"fps": -24.0}, "fps: "),
    ({"fps": 1e9}, "fps: "),
    ({"frames": 1.5e10}, "frames: "),
    ({"frames": -3}, "frames: "),
    ({"motion_bucket_id": 256}, "motion_bucket_id: "),
    ({"bucket": [576, 1024]}, "bucket"),
    ({"bucket": [576, 1024, 0]}, "bucket.2: "),
    ({"bucket": ["a", 1024, 14]}, "bucket.0: "),
    ({"sha256": "xyz"}, "sha256: "),
    ({"caption": ["two", "captions"]}, "caption: "),
    ({"source": {"path": "a"}}, "source: "),
]


@pytest.mark.parametrize(("change", "field"), WRONG)
def test_a_wrong_field_is_named_with_its_line(change: dict[str, Any], field: str) -> None:
    with pytest.raises(DataError) as caught:
        clips_of(FULL, FULL | {"key": "b"} | change)
    assert caught.value.message.startswith(f"line 2 of the index of {SHARD}: {field}")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("line", ["[1]", "7", "null", '"text"', "{}"])
def test_a_line_that_is_no_row_is_refused(line: str) -> None:
    builder = TableBuilder()
    with pytest.raises(DataError, match="line 2 of the index of"):
        builder.add(SHARD, parse_index(f"{json.dumps(ROW)}\n{line}\n".encode(), SHARD))
    with pytest.raises(DataError, match="line 1 of the index of .* cannot be parsed"):
        parse_index(b"{" + line.encode(), SHARD)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"))), st.lists(st.text(alphabet="ab")))
def test_strings_keep_every_string(one: list[str], other: list[str]) -> None:
    joined = Strings.joined([Strings(one), Strings(other), Strings([])])
    assert list(joined) == one + other
    assert list(pickle.loads(pickle.dumps(joined))) == one + other


def test_a_part_of_a_table_is_those_rows() -> None:
    builder = TableBuilder()
    for number in range(3):
        shard = Shard(Path(f"/data/{number}.tar"))
        builder.add(shard, [ROW | {"key": f"{number}-{n}", "fps": float(n + 1)} for n in range(4)], source=number)
    table = builder.table()
    part = table.where(table.number("fps") > 2)[1:]
    assert [clip.key for clip in part] == ["0-3", "1-2", "1-3", "2-2", "2-3"]
    assert list(part.every_key()) == list(part.every_source()) == [clip.key for clip in part]
    assert part.number("fps").tolist() == [4, 3, 4, 3, 4]
    assert part.shard_N.tolist() == part.source_N.tolist() == [0, 1, 1, 2, 2]
    assert [str(clip.shard) for clip in part] == [f"/data/{n}.tar" for n in part.shard_N]


@pytest.mark.parametrize(
    ("paths", "keys"),
    [
        (["/x/a/shards/t.tar", "/x/b/shards/t.tar"], ["a/t/k", "b/t/k"]),
        (["/x/a/s.tar", "/x/a/t.tar"], ["a/s/k", "a/t/k"]),
        (["/x/a/t.tar", "/y/a/t.tar"], ["/x/a/t.tar/k", "/y/a/t.tar/k"]),
    ],
)
def test_keys_that_are_used_twice_are_told_apart(paths: list[str], keys: list[str]) -> None:
    builder = TableBuilder()
    for number, path in enumerate(paths):
        builder.add(Shard(Path(path)), [ROW | {"key": "k"}, ROW | {"key": f"own-{number}"}])
    assert [clip.key for clip in builder.table()] == [keys[0], "own-0", keys[1], "own-1"]


def test_a_key_that_one_index_lists_twice_is_refused() -> None:
    with pytest.raises(DataError, match="k' is listed twice"):
        clips_of(*(ROW | {"key": "k"} for _ in range(2)))


def test_a_clip_costs_few_bytes() -> None:
    builder = TableBuilder()
    builder.add(SHARD, [FULL | {"key": f"some-key-{n:09d}", "source": f"video-{n}"} for n in range(10_000)])
    columns = builder.table().columns
    arrays = [columns.shard_N, columns.source_N, columns.sha256_N, *columns.numbers.values()]
    texts = [
        text for strings in (columns.keys, columns.sources, columns.captions) for text in (strings.blob, strings.ends_N)
    ]
    size = sum(array.nbytes for array in arrays) + sum(len(t) if isinstance(t, bytes) else t.nbytes for t in texts)
    assert size < 250 * 10_000
    assert isinstance(columns.keys.ends_N, np.ndarray)
