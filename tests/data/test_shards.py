"""Tars are indexed exactly, and whatever is wrong with one is said in one line that names it."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from webdataset.compat import WebDataset

from svdtrain.data.shards import index_shard, write_shard
from svdtrain.foundation.errors import DataError
from tests.data.videos import shard, video


def tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as output:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            output.addfile(header, io.BytesIO(data))
    return path


def test_what_is_written_is_indexed_and_read_back(tmp_path: Path) -> None:
    clips = [(f"c-{n}", bytes([n]) * (n + 1) * 300, {"fps": 7 + n, "source": f"v{n}", "frames": 9}) for n in range(4)]
    assert write_shard(tmp_path / "a.tar", clips) == 4
    for found, (key, data, metadata) in zip(index_shard(tmp_path / "a.tar"), clips, strict=True):
        assert (found.key, found.read(), found.fps, found.source) == (key, data, metadata["fps"], metadata["source"])
        assert (found.frames, found.motion_bucket_id) == (9, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [("k", b"data", {"b": 1, "a": 2})])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_stock_webdataset_reads_our_shards(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", 3, frames=4)
    samples = list(WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [clip.key for clip in index_shard(path)]
    assert [sample["mp4"] for sample in samples] == [clip.read() for clip in index_shard(path)]
    assert json.loads(samples[0]["json"]) == {"fps": 25, "source": "video-0"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_foreign_layouts(tmp_path: Path, format: int, caplog: pytest.LogCaptureFixture) -> None:
    """As others write them: dots in keys, folders, members apart, captions, failed downloads, Mac files, pickles."""
    members = [
        ("./00000/clip_v1.5_a.mp4", b"AAAA"),
        ("./00000/clip_v1.5_b.MKV", b"BB"),
        ("./00000/._clip_v1.5_a.mp4", b"mac"),
        ("./00000/clip_v1.5_b.json", b'{"url": "http://example.org/b", "motion_bucket_id": 30}'),
        ("./00000/clip_v1.5_a.json", b'{"source": {"path": "a.mov"}, "fps": 23.976}'),
        ("./00000/clip_v1.5_a.txt", b"caf\xe9"),
        ("./00000/failed.json", b'{"status": "failed_to_download"}'),
        ("./00000/" + "long" * 20 + ".webm", b"C"),
        ("./00000/evil.pkl", b"cos\nsystem\n(S'false'\ntR."),
        ("./README", b"no extension"),
    ]
    with caplog.at_level(logging.WARNING):
        first, second, third = index_shard(tar(tmp_path / "x.tar", members, format))
    assert (first.key, first.read(), first.fps, first.source) == ("00000/clip_v1.5_a", b"AAAA", 23.976, "a.mov")
    assert (second.key, second.read(), second.source) == ("00000/clip_v1.5_b", b"BB", "http://example.org/b")
    assert (second.motion_bucket_id, second.fps) == (30, None)
    assert (third.key, third.source) == ("00000/" + "long" * 20,) * 2
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "ignored 1 members that hold pickles",
        "ignored 1 entries that have metadata but no video",
    ]


def _link(path: Path, kind: bytes) -> None:
    with tarfile.open(path, "w") as output:
        header = tarfile.TarInfo("a.mp4")
        header.type, header.linkname = kind, "/etc/passwd"
        output.addfile(header)


def _mp4_and(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda path: tar(path, [("a.mp4", b"x"), (name, data)])


def _pax(*records: tuple[bytes, bytes]) -> Callable[[Path], object]:
    """A tar of members that have such a header (kind, record) before them."""

    def make(path: Path) -> None:
        tar(path, [(f"{number}.mp4", b"x") for number in range(len(records))])
        content, changed = path.read_bytes(), b""
        for number, (kind, record) in enumerate(records):
            header = tarfile.TarInfo("pax")
            header.type, header.size = kind, len(record)
            changed += header.tobuf() + record.ljust(512, b"\0") + content[1024 * number :][:1024]
        path.write_bytes(changed + bytes(1024))

    return make


BAD = {
    "no bytes": (lambda path: path.write_bytes(b""), "is no readable tar: empty file"),
    "text": (lambda path: path.write_text("hello " * 200), "is no readable tar: "),
    "gzip": (lambda path: tarfile.open(path, "w:gz").close(), "is no readable tar: "),
    "a video": (lambda path: path.write_bytes(video(frames=3)), "is no readable tar: "),
    "empty tar": (lambda path: tar(path, []), "holds no video: it is empty"),
    "no mp4": (
        lambda path: tar(path, [("a.jpg", b"x"), ("a.txt", b"x")]),
        "holds no video: its members are .jpg, .txt",
    ),
    "symbolic link": (lambda path: _link(path, tarfile.SYMTYPE), ": member 'a.mp4' is a link"),
    "hard link": (lambda path: _link(path, tarfile.LNKTYPE), ": member 'a.mp4' is a link"),
    "device": (lambda path: _link(path, tarfile.CHRTYPE), ": member 'a.mp4' is a sparse or special file"),
    "leads out": (_mp4_and("../b.mp4", b"x"), ": member '../b.mp4' points out of the shard"),
    "absolute": (_mp4_and("/b.mp4", b"x"), ": member '/b.mp4' points out of the shard"),
    "twice": (_mp4_and("a.mp4", b"y"), "holds 'a.mp4' twice"),
    "two videos": (_mp4_and("a.webm", b"y"), "clip 'a' in {path} has 2 videos"),
    "no video bytes": (_mp4_and("b.mp4", b""), "clip 'b' in {path} has 0 bytes"),
    "no json": (_mp4_and("a.json", b"{fps: 7}"), "clip 'a' in {path}: its .json cannot be parsed: "),
    "deep json": (_mp4_and("a.json", b"[" * 100_000), "clip 'a' in {path}: its .json cannot be parsed: "),
    "no object": (_mp4_and("a.json", b"[1]"), "clip 'a' in {path}: its .json is a list"),
    "much json": (_mp4_and("a.json", b" " * 2_000_000), "clip 'a' in {path}: its .json has 2,000,000 bytes"),
    "half a character": (
        _mp4_and("a.json", b'{"caption": "\\ud800"}'),
        r"clip 'a' in {path}: its .json says caption='\ud800'",
    ),
    "half a source": (
        _mp4_and("a.json", b'{"source": "\\udcff"}'),
        r"clip 'a' in {path}: its .json says source='\udcff'",
    ),
    "a long key": (_mp4_and("b" * 5000 + ".mp4", b""), f"clip '{'b' * 59}…' in {{path}} has 0 bytes"),
    "a sparse map of words": (
        _pax((tarfile.XHDTYPE, b"25 GNU.sparse.map=a,b,c,\n")),
        "is no readable tar: invalid literal for int()",
    ),
    "a size for all but the last": (
        _pax((tarfile.XGLTYPE, b"19 size=1000000000\n"), (tarfile.XHDTYPE, b"10 size=1\n")),
        "is cut short: ",
    ),
    "fps words": (_mp4_and("a.json", b'{"fps": "7"}'), "clip 'a' in {path}: its .json says fps='7'"),
    "fps nan": (_mp4_and("a.json", b'{"fps": NaN}'), "clip 'a' in {path}: its .json says fps=nan"),
    "fps 0": (_mp4_and("a.json", b'{"fps": 0}'), "clip 'a' in {path}: its .json says fps=0"),
    "bucket": (
        _mp4_and("a.json", b'{"motion_bucket_id": 256}'),
        "clip 'a' in {path}: its .json says motion_bucket_id=256",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    path = tmp_path / "bad.tar"
    make(path)
    with pytest.raises(DataError) as caught:
        index_shard(path)
    message = message.format(path=path) if "{path}" in message else f"{path}{'' if message[0] == ':' else ' '}{message}"
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_shard_cut_anywhere_or_with_a_hole_is_refused(tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", 4, frames=3).read_bytes()
    content = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for end in [*range(0, content, 512), *range(100, content, 1700)]:
        cut.write_bytes(whole[:end])
        with pytest.raises(DataError, match="cut.tar"):
            index_shard(cut)
    second = whole.index(b"clip-001.")
    for hole in (second, second + 148):
        cut.write_bytes(whole[:hole] + bytes(512) + whole[hole + 512 :])
        with pytest.raises(DataError, match="cut.tar"):
            index_shard(cut)


def test_a_shard_that_shrinks_or_goes_later_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", 1, frames=3)
    (clip,) = index_shard(path)
    path.write_bytes(path.read_bytes()[: clip.offset + 10])
    with pytest.raises(DataError, match=r"clip 'clip-000' in .*a\.tar cannot be read: .* expected, 10 found"):
        clip.read()
    path.unlink()
    with pytest.raises(DataError, match=r"clip 'clip-000' in .*a\.tar cannot be read: No such file"):
        clip.read()
