"""What data.source may name, how the held-out split is made, and what is said when it names nothing useful."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from svdtrain.data.manifest import find_shards, held_out_sources, read_manifest
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.files import packaged
from tests.data.videos import shard, video


@pytest.mark.parametrize("inside", ["", "shards"])
def test_named_splits_are_kept_and_other_tars_left_alone(tmp_path: Path, inside: str) -> None:
    shard(tmp_path / inside / "train-000000.tar", 3, frames=3)
    shard(tmp_path / inside / "train-000001.tar", 2, first=3, frames=3)
    shard(tmp_path / inside / "held_out-000000.tar", 2, first=5, frames=3)
    (tmp_path / inside / "latents-000000.tar").write_bytes(b"another kind")
    manifest = read_manifest(str(tmp_path))
    assert [clip.key for clip in manifest.train] == [f"clip-{n:03d}" for n in range(5)]
    assert [clip.key for clip in manifest.held_out] == ["clip-005", "clip-006"]
    summary = manifest.describe()
    assert (summary.train_clips, summary.held_out_clips, summary.shards) == (5, 2, 3)
    assert summary.bytes == 7 * len(video(frames=3))


def test_the_split_is_by_source_video(tmp_path: Path) -> None:
    shard(tmp_path / "00000.tar", 40, frames=2, sources=13)
    shard(tmp_path / "00001.tar", 40, first=40, frames=2, sources=13)
    manifest = read_manifest(str(tmp_path))
    train, held_out = ({clip.source for clip in clips} for clips in (manifest.train, manifest.held_out))
    assert len(held_out) == 2
    assert not train & held_out
    assert len(manifest.train) + len(manifest.held_out) == 80
    assert manifest == read_manifest([str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")])


@pytest.mark.parametrize("count", [2, 9, 10, 11, 100])
def test_a_tenth_of_the_sources_is_held_out_and_never_all(count: int) -> None:
    names = [f"v{n}" for n in range(count)]
    chosen = held_out_sources(names)
    assert len(chosen) == -(-count // 10)
    assert chosen == held_out_sources(reversed(names))
    assert chosen < set(names)


def test_one_source_gives_its_last_clips(tmp_path: Path) -> None:
    manifest = read_manifest(str(shard(tmp_path / "a.tar", 25, frames=2, sources=1)))
    assert [clip.key for clip in manifest.held_out] == ["clip-023", "clip-024"]


def test_equal_keys_of_two_shards_are_told_apart(tmp_path: Path) -> None:
    paths = [shard(tmp_path / name / "train-000000.tar", 3, frames=2) for name in ("a", "b")]
    keys = {clip.key for clip in read_manifest([str(path.parent) for path in paths]).train}
    assert {"a/train-000000/clip-001", "b/train-000000/clip-001"} & keys
    assert len(keys) + len(read_manifest([str(path) for path in paths]).held_out) == 6


def test_the_fingerprint_knows_the_clips_not_the_place(tmp_path: Path) -> None:
    shard(tmp_path / "a" / "train-000000.tar", 4, frames=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shard(tmp_path / "c" / "train-000000.tar", 4, frames=3)
    same, moved, other = (read_manifest(str(tmp_path / name)).fingerprint for name in "abc")
    assert same == moved != other


def test_packaged_sets() -> None:
    for folder in packaged("datasets").iterdir():
        if any(folder.rglob("*.tar")):
            manifest = read_manifest(f"demo:{folder.name}")
            assert manifest.train
            assert manifest.held_out


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "'missing': there is no such file or folder"),
        ("empty", "'empty' holds no .tar shards"),
        ("videos", "'videos' holds plain videos, no .tar shards"),
        ("pipe:curl http://x", "'pipe:curl http://x': pipe: addresses are not read, only local files"),
        ("http://x/a.tar", "'http://x/a.tar': http: addresses are not read, only local files"),
        ("s3://x/a.tar", "'s3://x/a.tar': s3: addresses are not read, only local files"),
        ("a.tar::b.tar", "'a.tar::b.tar': there is no such file or folder"),
        ("demo:nonsense", "demo:nonsense: there is no such demo set"),
        ("demo:../tests", "demo:../tests: there is no such demo set"),
        ("one.tar", "'one.tar' holds 1 clip"),
        ([], " is an empty list"),
        (["one.tar", "./one.tar"], " names "),
    ],
)
def test_refused_in_one_line(
    source: str | list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    (tmp_path / "videos" / "deep" / "a.MOV").write_bytes(b"x")
    shard(tmp_path / "one.tar", 1, frames=2)
    with pytest.raises(DataError) as caught:
        read_manifest(source)
    assert caught.value.message.startswith(f"data.source{message if message[0] == ' ' else '=' + message}")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_folder_of_videos_is_told_how_to_pack(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video(frames=2))
    with pytest.raises(DataError) as caught:
        find_shards(str(tmp_path))
    assert f"python scripts/pack_clips.py {tmp_path} OUT" in caught.value.hint
