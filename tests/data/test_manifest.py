"""What data.source may name, how the held-out split is made, and what is said when it names nothing useful."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from svdtrain.data.manifest import held_out_sources, read_manifest
from svdtrain.data.shards import index_shard, write_index
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
    again = read_manifest([str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")])
    assert (list(again.train), list(again.held_out)) == (list(manifest.train), list(manifest.held_out))
    assert again.fingerprint == manifest.fingerprint


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
        ("pipe:curl http://x", "'pipe:curl http://x': pipe: addresses are refused"),
        ("file:///etc/passwd", "'file:///etc/passwd': file: addresses are refused"),
        ("ftp://x/a.tar", "'ftp://x/a.tar': ftp: addresses are refused"),
        ("http:x", "'http:x': http: addresses are refused"),
        ("https://x/a.tar::pipe:sh", "'https://x/a.tar::pipe:sh': https: addresses are refused"),
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
        read_manifest(str(tmp_path))
    assert f"python -m svdtrain prepare source={tmp_path} out=OUT" in caught.value.hint


def prepared(folder: Path, *, clips: int = 4, sizes: int = 3, bucket: list[int] | None = None, frames: int = 9) -> Path:
    """A dataset as `prepare` lays it out: `sizes` train shards and a held-out one, indexes, a manifest."""
    entries = []
    for number in range(sizes + 1):
        name = "held_out-000000" if number == sizes else f"train-{number:06d}"
        path = shard(folder / "shards" / f"{name}.tar", clips, first=number * clips, frames=frames)
        rows = [
            {
                "key": clip.key,
                "source": clip.source,
                "fps": 25.0,
                "frames": frames,
                "height": 48,
                "width": 80,
                "caption": f"caption of {clip.key}",
                "motion_bucket_id": 100,
                "bucket": bucket,
                "sha256": hashlib.sha256(clip.read()).hexdigest(),
                "verified": True,
                "blur": 1.5,
            }
            for clip in index_shard(path)
        ]
        index = write_index(path, rows)
        entries.append(
            {
                "name": f"shards/{path.name}",
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "clips": clips,
                "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
            }
        )
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "created_by": "a test", "shards": entries}))
    return folder


def test_the_index_is_what_a_look_through_the_shards_finds_and_more(tmp_path: Path) -> None:
    by_index = read_manifest(str(prepared(tmp_path / "a", bucket=[32, 48, 4])))
    shutil.copytree(tmp_path / "a" / "shards", tmp_path / "b")
    for path in (tmp_path / "b").glob("*.jsonl"):
        path.unlink()
    by_tar = read_manifest(str(tmp_path / "b"))
    for one, other in zip((*by_index.train, *by_index.held_out), (*by_tar.train, *by_tar.held_out), strict=True):
        assert (one.key, one.offset, one.size, one.source, one.fps) == (
            other.key,
            other.offset,
            other.size,
            other.source,
            other.fps,
        )
        assert one.read() == other.read()
        assert (one.caption, one.verified, one.picture) == (f"caption of {one.key}", True, (48, 80))
        assert (one.bucket, one.motion_bucket_id, one.frames) == ((32, 48, 4), 100, 9)
        assert one.sha256 == hashlib.sha256(one.read()).hexdigest()
        assert (other.caption, other.verified, other.bucket, other.sha256) == (None, False, None, None)
    assert (len(by_index.train), len(by_index.held_out)) == (12, 4)


@pytest.mark.parametrize("source", ["", "shards", "shards/train-000001.tar"])
def test_a_part_of_a_dataset_is_vouched_for_too(tmp_path: Path, source: str) -> None:
    assert all(clip.verified for clip in read_manifest(str(prepared(tmp_path) / source)).train)


def _edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _flipped(data: bytes) -> bytes:
    return data[:3000] + bytes([data[3000] ^ 1]) + data[3001:]


def _reindexed(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Another index, and a manifest that vouches for it."""

    def make(folder: Path) -> None:
        index = folder / "shards/train-000001.idx.jsonl"
        before = hashlib.sha256(index.read_bytes()).hexdigest()
        index.write_bytes(change(index.read_bytes()))
        after = hashlib.sha256(index.read_bytes()).hexdigest()
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace(before, after))

    return make


TAR, INDEX = "shards/train-000001.tar", "shards/train-000001.idx.jsonl"
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda folder: (folder / TAR).unlink(), f"{TAR} is not there, "),
    "all missing": (lambda folder: shutil.rmtree(folder / "shards"), "(4 of 4 are missing)"),
    "shard empty": (_edit(TAR, lambda _: b""), f"{TAR} is cut short: it has 0 bytes, the manifest says "),
    "shard cut": (_edit(TAR, lambda data: data[:-512]), f"{TAR} is cut short: it has "),
    "shard longer": (_edit(TAR, lambda data: data + b"x"), f"{TAR} was changed: it has "),
    "shard too many": (lambda folder: shutil.copy(folder / TAR, folder / "shards/train-000009.tar"), " is not in "),
    "index missing": (lambda folder: (folder / INDEX).unlink(), f"{INDEX} cannot be read: No such file"),
    "index changed": (_edit(INDEX, lambda data: data.replace(b"25.0", b"24.0")), f"{INDEX} is not what the manifest"),
    "index cut": (_edit(INDEX, lambda data: data[:-9]), f"{INDEX} is not what the manifest lists: another sha256"),
    "row lost": (_reindexed(lambda data: data[data.index(b"\n") + 1 :]), "lists 3 clips, the manifest 4"),
    "row of another kind": (
        _reindexed(lambda data: data.replace(b'"fps": 25.0', b'"fps": "fast"')),
        "line 1 of the index of ",
    ),
    "no JSON": (_reindexed(lambda data: data[:-9]), "line 4 of the index of "),
    "place behind the end": (
        _reindexed(lambda data: re.sub(rb'"mp4": \[\d+', b'"mp4": [99999999', data)),
        "behind its end at byte ",
    ),
    "place before the start": (
        _reindexed(lambda data: re.sub(rb'"mp4": \[\d+', b'"mp4": [-1', data)),
        "members.mp4.0",
    ),
    "manifest cut": (_edit("manifest.json", lambda data: data[:-9]), "manifest.json cannot be parsed: "),
    "newer manifest": (
        _edit("manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 2')),
        "manifest.json has format 2, 1 is read",
    ),
    "path that leads out": (
        _edit("manifest.json", lambda data: data.replace(b"shards/train-000001", b"shards/../../x")),
        "manifest.json: shards.1.name: ",
    ),
    "wrong hash": (
        _edit("manifest.json", lambda data: re.sub(rb'"index_sha256": "..', b'"index_sha256": "zz', data)),
        "manifest.json: shards.0.index_sha256: ",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_the_manifest_does_not_vouch_for_is_refused_at_the_start(tmp_path: Path, case: str) -> None:
    change, message = CHANGES[case]
    change(prepared(tmp_path))
    with pytest.raises(DataError) as caught:
        read_manifest(str(tmp_path))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_shard_cut_at_any_block_is_refused_at_the_start(tmp_path: Path) -> None:
    path = prepared(tmp_path) / TAR
    whole = path.read_bytes()
    for end in range(0, len(whole), 512):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"train-000001\.tar is cut short: it has [\d,]+ bytes, the manifest says"):
            read_manifest(str(tmp_path))


def test_a_flipped_bit_is_found_when_all_bytes_are_compared(tmp_path: Path) -> None:
    path = prepared(tmp_path) / TAR
    path.write_bytes(_flipped(path.read_bytes()))
    assert len(read_manifest(str(tmp_path)).train) == 12
    with pytest.raises(DataError, match=r"train-000001\.tar was changed: its sha256 is \w+…, the manifest says \w+…"):
        read_manifest(str(tmp_path), full=True)


def test_the_fingerprint_knows_the_shards_content(tmp_path: Path) -> None:
    before = read_manifest(str(prepared(tmp_path))).fingerprint
    manifest = tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    assert read_manifest(str(tmp_path)).fingerprint != before
