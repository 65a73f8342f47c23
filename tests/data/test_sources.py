"""Shards from elsewhere: fetched once, whole, checked, gone on with after a break; and nothing else is ever opened."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from svdtrain.data import shard_cache
from svdtrain.data.manifest import read_manifest
from svdtrain.data.shard_cache import RemoteFile, ShardCache
from svdtrain.data.transports import Http
from svdtrain.foundation.errors import DataError, SvdtrainError, SystemFault
from tests.data.loopback import COMMIT, Server, hub
from tests.data.test_datamodule import module
from tests.data.test_manifest import prepared
from tests.data.videos import shard


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**9)


def remote(server: Server, cache: ShardCache, data: bytes, *, sha256: str | None = None) -> RemoteFile:
    server.files["/a.tar"] = data
    size, version = Http().facts(f"{server.url}/a.tar")
    return RemoteFile(f"{server.url}/a.tar", f"{server.url}/a.tar", Http(), cache, size, sha256, version)


def content(file: RemoteFile) -> bytes:
    with file.open() as opened:
        return opened.read()


def test_a_prepared_dataset_over_http(tmp_path: Path, server: Server, cache: ShardCache) -> None:
    server.add(prepared(tmp_path / "data"))
    here, there = read_manifest(str(tmp_path / "data")), read_manifest(server.url, cache=cache)
    assert there.fingerprint == here.fingerprint
    assert not [path for path in server.fetched() if path.endswith(".tar")], "the start takes indexes only"
    for one, other in zip((*here.train, *here.held_out), (*there.train, *there.held_out), strict=True):
        assert (one.key, one.caption, one.verified, one.read()) == (
            other.key,
            other.caption,
            other.verified,
            other.read(),
        )
    assert there.train[0].name == f"clip 'clip-000' in {server.url}/shards/train-000000.tar"
    fetched = server.fetched()
    assert len(fetched) == len(set(fetched)), "each file is fetched once"
    again = read_manifest(server.url + "/", cache=cache)
    assert [clip.read() for clip in again.train] == [clip.read() for clip in here.train]
    assert server.fetched() == fetched, "and from then on found here"


def test_shards_without_a_manifest_over_http(tmp_path: Path, server: Server, cache: ShardCache) -> None:
    for number in range(3):
        shard(tmp_path / f"train-{number:06d}.tar", 2, first=2 * number, frames=3)
    shard(tmp_path / "held_out-000000.tar", 1, first=9, frames=3)
    server.add(tmp_path, "/sub/")
    source = [f"{server.url}/sub/train-{{000000..000002}}.tar?signed=1", f"{server.url}/sub/held_out-000000.tar"]
    manifest = read_manifest(source, cache=cache)
    assert [clip.key for clip in manifest.train] == [f"clip-{n:03d}" for n in range(6)]
    assert [clip.key for clip in manifest.held_out] == ["clip-009"]
    assert "signed" not in manifest.train[0].name
    with pytest.raises(DataError, match="has no manifest.json, and a web server cannot be listed") as caught:
        read_manifest(f"{server.url}/sub", cache=cache)
    assert "train-{000000..000099}.tar" in caught.value.hint


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_gone_on_with(server: Server, cache: ShardCache, ranges: bool) -> None:
    data = os.urandom(300_000)
    file = remote(server, cache, data, sha256=hashlib.sha256(data).hexdigest())
    server.break_after, server.ranges = [100_000, 50_000, 10**9], ranges
    assert content(file) == data
    asked = [asked for path, asked in server.hits if path == "/a.tar" and asked != "bytes=0-0"]
    assert asked == (["", "bytes=100000-", "bytes=150000-"] if ranges else ["", "bytes=100000-", "bytes=50000-"])
    assert [path.name for path in cache.folder.iterdir() if ".lock" not in path.name] == [file.path.name]


def test_another_process_goes_on_with_what_one_left(server: Server, cache: ShardCache) -> None:
    data = os.urandom(100_000)
    file = remote(server, cache, data)
    cache.folder.mkdir(parents=True)
    file.path.with_name(f"partial-{file.path.name}").write_bytes(data[:60_000])
    assert content(file) == data
    assert server.hits[-1] == ("/a.tar", "bytes=60000-")


def test_wrong_bytes_are_fetched_again_and_then_refused(
    server: Server, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache, "ATTEMPTS", 2)
    data = os.urandom(50_000)
    good = hashlib.sha256(data).hexdigest()
    file = remote(server, cache, data, sha256=good)
    cache.folder.mkdir(parents=True)
    partial = file.path.with_name(f"partial-{file.path.name}")
    partial.write_bytes(bytes(20_000))
    assert content(file) == data, "a wrong beginning is thrown away"
    file = remote(server, cache, data[::-1], sha256=good[::-1])
    message = rf"a\.tar cannot be fetched: its sha256 is \w{{16}}…, {good[::-1][:16]}… is expected"
    with pytest.raises(DataError, match=message):
        content(file)
    assert not file.path.exists()
    assert not partial.exists()


STATUSES: list[tuple[list[int], str, str]] = [
    ([404], "is not there (HTTP 404)", "check data.source"),
    ([403], ": the server says HTTP 403 Forbidden", "this address is not public"),
    ([503] * 9, " cannot be fetched: the transfer broke off: HTTP 503 Service Unavailable", "try again later"),
]


@pytest.mark.parametrize(("statuses", "message", "hint"), STATUSES)
def test_refusals_are_one_line(
    server: Server,
    cache: ShardCache,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[int],
    message: str,
    hint: str,
) -> None:
    monkeypatch.setattr(shard_cache, "ATTEMPTS", 2)
    file = remote(server, cache, b"data")
    server.statuses = list(statuses)
    with pytest.raises(DataError, match=f"^{re.escape(file.address)} ?{re.escape(message.strip())}") as caught:
        content(file)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    server.statuses = [503]
    assert content(file) == b"data", "and one that passes is tried again"


def test_a_file_that_changes_during_a_run_is_refused(server: Server, cache: ShardCache) -> None:
    file = remote(server, cache, b"before")
    server.files["/a.tar"] = b"after!"
    with pytest.raises(DataError, match=r"a\.tar: it has changed since the run began"):
        content(file)
    assert content(remote(server, cache, b"after!")) == b"after!"


def test_many_readers_fetch_once(server: Server, cache: ShardCache) -> None:
    data = os.urandom(200_000)
    file = remote(server, cache, data)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(content, [file] * 24)) == {data}
    assert server.fetched() == ["/a.tar"]


def test_what_was_not_used_for_longest_makes_room(server: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 2500)
    files: list[RemoteFile] = []
    for number in range(3):
        url = f"{server.url}/{number}.tar"
        server.files[f"/{number}.tar"] = bytes([number]) * 1000
        files.append(RemoteFile(url, url, Http(), cache, 1000))
    kept = files[0].open()
    content(files[1])
    os.utime(files[1].path, (time.time() - 50, time.time() - 50))
    os.utime(files[0].path, (time.time() - 99, time.time() - 99))
    content(files[0])
    content(files[2])
    assert [file.path.exists() for file in files] == [True, False, True]
    content(files[1])
    assert [file.path.exists() for file in files] == [False, True, True]
    assert kept.read() == bytes(1000), "who has it open reads on"
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 2500
    with pytest.raises(SystemFault, match=r"big\.tar has 9,999 bytes, .* may hold 2,500") as caught:
        content(RemoteFile("big.tar", f"{server.url}/big.tar", Http(), cache, 9999))
    assert caught.value.hint == "raise data.shard_cache_gb"


def test_a_run_starts_without_fetching_what_its_index_knows(tmp_path: Path, server: Server, cache: ShardCache) -> None:
    server.add(prepared(tmp_path / "data"))
    data = module(tmp_path, cache=cache)
    data.source = server.url
    data.setup("fit")
    assert not [path for path in server.fetched() if path.endswith(".tar")]
    keys = [batch.keys_B for batch in data.train_dataloader()]
    assert keys == [batch.keys_B for batch in module(tmp_path / "data").train_dataloader()]
    small = module(tmp_path, cache=ShardCache(tmp_path / "small", 30_000), shuffle_shards=2)
    small.source = server.url
    with pytest.raises(
        SystemFault, match=r"^2 shards that are shuffled together have [\d,]+ bytes, .* 30,000$"
    ) as caught:
        small.setup("fit")
    assert caught.value.hint == "data.shard_cache_gb=1, or a smaller data.shuffle_shards"


def test_a_full_or_forbidden_folder_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    file = remote(server, ShardCache(tmp_path / "cache", 10**9), b"data")
    with pytest.raises(SystemFault, match=r"a\.tar cannot be kept in .*/cache: Not a directory"):
        content(file)


def test_a_bucket_through_fsspec(tmp_path: Path, cache: ShardCache) -> None:
    prepared(tmp_path / "data")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "data"), "/bucket/with", recursive=True)
    memory.put(str(tmp_path / "data" / "shards"), "/bucket/without", recursive=True)
    here = read_manifest(str(tmp_path / "data"))
    there = read_manifest("memory://bucket/with", cache=cache)
    assert there.fingerprint == here.fingerprint
    for manifest in (there, read_manifest("memory://bucket/without/", cache=cache)):
        assert [clip.read() for clip in manifest.train] == [clip.read() for clip in here.train]
        assert [clip.key for clip in manifest.held_out] == [clip.key for clip in here.held_out]
    with pytest.raises(DataError, match="'memory://bucket/nothing' holds no .tar shards"):
        read_manifest("memory://bucket/nothing", cache=cache)
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("path", ["", "/data", "/data/shards/{train-000000,train-000001,held_out-000000}.tar"])
def test_a_dataset_of_the_hub_is_pinned_to_a_commit(
    tmp_path: Path, server: Server, cache: ShardCache, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    prepared(tmp_path / "data", sizes=2)
    server.add(tmp_path / "data", f"/datasets/org/name/resolve/{COMMIT}/{'data/' if path else ''}")
    hub(server, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    manifest = read_manifest(f"hf://datasets/org/name@main{path}", cache=cache)
    here = read_manifest(str(tmp_path / "data"))
    assert [clip.read() for clip in manifest.train] == [clip.read() for clip in here.train]
    assert f"hf://datasets/org/name@{COMMIT}/" in manifest.train[0].name
    told = {path: headers.get("Authorization") for (path, _), headers in zip(server.hits, server.headers, strict=True)}
    assert {token for path, token in told.items() if path.startswith("/cdn/")} == {None}, "the token stays with the Hub"
    assert {token for path, token in told.items() if "/resolve/" in path} == {"Bearer hf_secret"}


def test_no_token_is_sent_that_the_environment_does_not_hold(
    tmp_path: Path, server: Server, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(prepared(tmp_path / "data"), f"/datasets/org/name/resolve/{COMMIT}/")
    hub(server, monkeypatch)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    read_manifest("hf://datasets/org/name@main", cache=cache)
    assert {headers.get("Authorization", headers.get("authorization")) for headers in server.headers} == {None}


REFUSED: list[tuple[str, str]] = [
    ("https://user:secret@example.org/a.tar", "data.source=https://…: credentials in an address are refused"),
    ("s3://key:secret@bucket/a.tar", "data.source=s3://…: credentials in an address are refused"),
    ("s3://bucket/a.tar", "s3:// addresses need the package s3fs, which is not installed"),
    ("gs://bucket/data", "gs:// addresses need the package gcsfs, which is not installed"),
    ("hf://org/name", "data.source='hf://org/name': no such address"),
    ("http://127.0.0.1:9/a.tar", "data.source='http://127.0.0.1:9/a.tar' cannot be reached: "),
    ("github://org:repo@main/a.tar", "data.source='github://org:repo@main/a.tar': github: addresses are refused"),
    ("simplecache::s3://b/a.tar", "data.source='simplecache::s3://b/a.tar': simplecache: addresses are refused"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED)
def test_addresses_are_refused_in_one_line(source: str, message: str, cache: ShardCache) -> None:
    with pytest.raises(SvdtrainError) as caught:
        read_manifest(source, cache=cache)
    assert caught.value.message.startswith(message)
    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_named(server: Server, cache: ShardCache) -> None:
    with pytest.raises(DataError, match=r"nothing\.tar': there is no such file \(HTTP 404\)"):
        read_manifest(f"{server.url}/nothing.tar", cache=cache)


def test_a_hub_that_refuses_or_is_not_reached_is_one_line(
    server: Server, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(server, monkeypatch)
    for source, said in {"hf://datasets/org/other@main": "404", "hf://datasets/a/b/c": "the Hub says"}.items():
        with pytest.raises(DataError, match=rf"^data\.source='{source}'(:|.*) .*{said}") as caught:
            read_manifest(source, cache=cache)
        assert "\n" not in caught.value.message
        assert "HF_TOKEN" in caught.value.hint
    server.files.clear()
    with pytest.raises(DataError, match="'hf://datasets/org/name@main': the Hub says: "):
        read_manifest("hf://datasets/org/name@main", cache=cache)
