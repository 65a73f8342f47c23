"""What data.source names: shards on this machine, on a server, in a bucket or on the Hub, and what vouches for them."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from braceexpand import braceexpand
from pydantic import Field, TypeAdapter, ValidationError

from svdtrain.data.clip import Shard
from svdtrain.data.index import VIDEO_EXTENSIONS
from svdtrain.data.shard_cache import RemoteFile, ShardCache
from svdtrain.data.transports import PACKAGES, Filesystem, Http, Interrupted, Missing
from svdtrain.foundation.errors import DataError, nearest, shown
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from collections.abc import Callable

WANTED = "data.source is a dataset folder, a .tar shard, a list of them, demo:NAME, or an http(s), s3, gs or hf address"
SCHEMES = ("http", "https", "hf", *PACKAGES)
MANIFEST = "manifest.json"
FORMAT = 1
LARGEST_MANIFEST = 64 << 20
HF_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./%-]+?))?(?:/(?P<path>[^@]*))?$")

log = logging.getLogger(__name__)
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ManifestShard:
    """A row of a manifest's `shards`."""

    name: Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar$")]
    """Relative to the manifest's folder."""
    bytes: Annotated[int, Field(ge=1)]
    sha256: Sha256
    clips: Annotated[int, Field(ge=0)]
    index_sha256: Sha256


@dataclass(frozen=True)
class ListedShard:
    """A shard, and what vouches for it."""

    shard: Shard
    entry: ManifestShard | None = None
    index: Shard | None = None
    """The index file beside it; only with an entry, whose hash it must have."""

    @property
    def held_out(self) -> bool:
        """By its name."""
        return str(self.shard).rpartition("/")[2].startswith("held_out-")


def list_shards(source: str, cache: ShardCache) -> list[ListedShard]:
    """The shards that one address names. DataError says what else was found there."""
    if source.startswith("demo:"):
        return _local(str(_demo(source.removeprefix("demo:"))), source)
    path = Path(source).expanduser()
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+-]+):", source)
    if path.exists() or not scheme:
        return _local(str(path), source)
    if scheme[1] not in SCHEMES or "::" in source or not source.startswith(f"{scheme[1]}://"):
        why = f"{scheme[0]} addresses are refused"
        raise DataError(f"data.source={source!r}: {why}", WANTED)
    if "@" in source.split("/")[2]:
        message = f"data.source={source.partition(':')[0]}://…: credentials in an address are refused"
        raise DataError(message, "put them into the environment")
    try:
        folder = _hub(source, cache) if scheme[1] == "hf" else _server(source, cache)
        return _remote(source, folder)
    except Missing as error:
        raise DataError(f"data.source={source!r}: there is no such file ({error})", WANTED) from error
    except Interrupted as error:
        raise DataError(f"data.source={source!r} cannot be reached: {error}", "check the network, try again") from error


def parse_manifest(text: bytes, where: str) -> dict[str, ManifestShard] | None:
    """The manifest's shards by name; None for a manifest.json of another kind. DataError for a wrong or newer one."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} cannot be parsed: {shown(str(error))}", "copy or prepare the dataset again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        return None
    if content["format"] != FORMAT:
        message = f"{where} has format {shown(repr(content['format']))}, {FORMAT} is read"
        raise DataError(message, "update svdtrain, or prepare the dataset again")
    try:
        shards = TypeAdapter(list[ManifestShard]).validate_python(content.get("shards"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = shown(".".join(map(str, ("shards", *first["loc"]))))
        raise DataError(f"{where}: {field}: {first['msg']}", "prepare the dataset again") from error
    return {shard.name: shard for shard in shards}


def _local(source: str, said: str) -> list[ListedShard]:
    path = Path(source)
    for root in (path, path.parent, path.parent.parent):
        entries = parse_manifest(file.read_bytes(), str(file)) if (file := root / MANIFEST).is_file() else None
        if entries:
            inside = {(root / name).resolve(): entry for name, entry in entries.items()}
            break
    else:
        return [ListedShard(Shard(tar)) for tar in _tars(path, said)]
    wanted = [tar for tar in inside if tar == path.resolve() or path.resolve() in tar.parents]
    if missing := [tar for tar in wanted if not tar.is_file()]:
        message = f"{missing[0]} is not there, {root / MANIFEST} lists it ({len(missing)} of {len(wanted)} are missing)"
        raise DataError(message, "copy the dataset again")
    found = _tars(path, said)
    if odd := [tar for tar in found if tar.resolve() not in inside]:
        raise DataError(f"{odd[0]} is not in {root / MANIFEST}", "move it away, or prepare the dataset again")
    return [
        ListedShard(Shard(tar), inside[tar.resolve()], Shard(tar.with_name(f"{tar.stem}.idx.jsonl"))) for tar in found
    ]


def _tars(path: Path, said: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data.source={said!r}: there is no such file or folder", WANTED)
    for folder in (path, path / "shards"):
        tars = sorted(folder.glob("*.tar"))
        if named := [tar for tar in tars if tar.name.startswith(("train-", "held_out-"))]:
            return named
        if tars:
            return tars
    if any(file.suffix.lower().removeprefix(".") in VIDEO_EXTENSIONS for file in path.rglob("*")):
        hint = f"prepare them first: python -m svdtrain prepare {shlex.quote(f'source={said}')} out=OUT, then data.source=OUT"
        raise DataError(f"data.source={said!r} holds plain videos, no .tar shards", hint)
    raise DataError(f"data.source={said!r} holds no .tar shards", WANTED)


def _demo(name: str) -> Path:
    folder = packaged("datasets")
    known = [path.name for path in folder.iterdir() if path.is_dir()]
    if name not in known:
        raise DataError(f"data.source=demo:{name}: there is no such demo set", nearest(name, known))
    return folder / name


@dataclass(frozen=True)
class _Folder:
    """A place elsewhere."""

    file: Callable[[str], RemoteFile]
    """By its name relative to the place; Missing when there is none."""
    tars: Callable[[], list[str]] | None
    """The names of its .tar files; None where a place cannot be listed."""
    names: tuple[str, ...] = ()
    """The shards that the address itself names."""


def _remote(source: str, folder: _Folder) -> list[ListedShard]:
    if folder.names:
        return [ListedShard(Shard(file.path, file)) for file in map(folder.file, folder.names)]
    try:
        manifest = folder.file(MANIFEST)
        if (manifest.bytes or 0) > LARGEST_MANIFEST:
            message = f"{manifest.address} has {manifest.bytes:,} bytes"
            raise DataError(message, f"at most {LARGEST_MANIFEST:,} are read")
        with manifest.open() as file:
            entries = parse_manifest(file.read(LARGEST_MANIFEST), manifest.address)
        if entries:
            return [_vouched(manifest, entries[name]) for name in sorted(entries)]
    except Missing:
        pass
    if folder.tars is None:
        hint = f"name its shards: data.source='{source.rstrip('/')}/train-{{000000..000099}}.tar'"
        raise DataError(f"data.source={source!r} has no {MANIFEST}, and a web server cannot be listed", hint)
    names = folder.tars() or []
    if not names:
        raise DataError(f"data.source={source!r} holds no .tar shards", WANTED)
    named = [name for name in names if name.rpartition("/")[2].startswith(("train-", "held_out-"))]
    return [ListedShard(Shard(file.path, file)) for file in map(folder.file, named or names)]


def _vouched(manifest: RemoteFile, entry: ManifestShard) -> ListedShard:
    """A shard and its index by what the manifest says, without asking for each."""

    def beside(name: str, size: int | None, sha256: str) -> Shard:
        file = replace(
            manifest,
            address=manifest.address.removesuffix(MANIFEST) + name,
            url=name.join(manifest.url.rsplit(MANIFEST, 1)),
            bytes=size,
            sha256=sha256,
            version="",
        )
        return Shard(file.path, file)

    index = beside(f"{entry.name.removesuffix('.tar')}.idx.jsonl", None, entry.index_sha256)
    return ListedShard(beside(entry.name, entry.bytes, entry.sha256), entry, index)


def _server(source: str, cache: ShardCache) -> _Folder:
    """A web server or a bucket: an address of shards (braces expanded), or of a folder."""
    scheme = source.partition(":")[0]
    transport = Http() if scheme.startswith("http") else Filesystem(scheme)
    parts, query, signed = source.partition("?")
    names = tuple(braceexpand(parts)) if parts.endswith(".tar") else ()

    def file(name: str) -> RemoteFile:
        url = name if "://" in name else f"{parts.rstrip('/')}/{name}"
        size, version = transport.facts(url + query + signed)
        return RemoteFile(url, url + query + signed, transport, cache, size, version=version)

    listing = transport if isinstance(transport, Filesystem) else None
    tars = (lambda: listing.tars(parts) or listing.tars(f"{parts.rstrip('/')}/shards")) if listing else None
    return _Folder(file, tars, names)


def _hub(source: str, cache: ShardCache) -> _Folder:
    """A dataset repository of the Hub, at the commit that its revision names now."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HFValidationError, HTTPError
    from huggingface_hub.hf_api import RepoFile

    match = HF_ADDRESS.match(source)
    if not match:
        raise DataError(f"data.source={source!r}: no such address", "hf://datasets/ORG/NAME@REVISION/PATH is meant")
    repo, path = match["repo"], (match["path"] or "").strip("/")
    api = HfApi(token=os.environ.get("HF_TOKEN") or False)
    try:
        commit = api.dataset_info(repo, revision=match["revision"]).sha
        tree = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset")
        known = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    except (HTTPError, HFValidationError, OSError) as error:
        message = f"data.source={source!r}: the Hub says: {' '.join(str(error).split())[:160]}"
        raise DataError(message, "check the address; a private one wants HF_TOKEN in the environment") from error

    log.info("%s stands at commit %s", source, commit)

    def file(name: str) -> RemoteFile:
        inside = f"{path}/{name}".strip("/")
        name = inside if inside in known else name
        asked = path.endswith(".tar") or not path or name.startswith(f"{path}/")  # not another folder's manifest
        if name not in known or not asked:
            raise Missing(name)
        entry = known[name]
        address = f"hf://datasets/{repo}@{commit}/{name}"
        url = hf_hub_url(repo, name, repo_type="dataset", revision=commit)
        sha256 = entry.lfs.sha256 if entry.lfs else None
        return RemoteFile(address, url, Http("HF_TOKEN"), cache, entry.size, sha256)

    def tars() -> list[str]:
        inside = [name for name in known if name.endswith(".tar") and name.startswith(f"{path}/" if path else "")]
        depth = min((name.count("/") for name in inside), default=0)
        return sorted(name for name in inside if name.count("/") == depth)

    return _Folder(file, tars, tuple(braceexpand(path)) if path.endswith(".tar") else ())
