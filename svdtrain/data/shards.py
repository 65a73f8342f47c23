"""WebDataset shards: written by webdataset's own TarWriter, byte for byte reproducible; read through an index."""

from __future__ import annotations

import json
import logging
import math
import tarfile
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from svdtrain.data.clip import Clip, Shard
from svdtrain.data.index import LARGEST_VIDEO as LARGEST_VIDEO
from svdtrain.data.index import STILL_EXTENSIONS, VIDEO_EXTENSIONS, Row
from svdtrain.data.table import TableBuilder
from svdtrain.foundation.errors import DataError, shown
from svdtrain.foundation.files import replacing, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PICKLE_EXTENSIONS = ("pickle", "pkl", "pyd", "pth", "pt", "ckpt", "joblib")
LARGEST_METADATA = 1 << 20
MAKE = "a shard is an uncompressed tar of KEY.mp4 and KEY.json: python -m svdtrain prepare makes them"
MOST_MEMBERS = 10_000_000
BLOCK = tarfile.BLOCKSIZE
_UNREADABLE = (tarfile.TarError, ValueError, OverflowError)
"""What tarfile raises for headers that hold no numbers, or numbers that no file reaches."""

log = logging.getLogger(__name__)
Members = dict[str, dict[str, tuple[int, int]]]


def write_shard(path: Path, clips: Iterable[tuple[str, bytes, dict[str, Any]]]) -> int:
    """Write (key, mp4 bytes, metadata) clips to one tar; returns how many. The file appears only when it is whole."""
    return write_samples(
        path,
        ((key, {"mp4": mp4, "json": json.dumps(metadata, sort_keys=True).encode()}) for key, mp4, metadata in clips),
    )


def write_samples(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> int:
    """Write (key, {extension: bytes}) samples to one tar, as `write_shard` does."""
    from webdataset.writer import TarWriter

    count = 0
    with (
        replacing(path) as partial,
        TarWriter(str(partial), user="svdtrain", group="svdtrain", mode=0o644, mtime=0) as writer,
    ):
        for key, members in samples:
            writer.write({"__key__": key, **members})
            count += 1
    return count


def index_path(shard: Path) -> Path:
    """Where the index of a shard lies: beside it."""
    return shard.with_name(f"{shard.stem}.idx.jsonl")


def write_index(shard: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write the index beside a shard: one JSON object for each row, with the places of the members of its `key`."""
    members = list_members(shard)
    lines = [json.dumps(row | {"members": members[row["key"]]}, sort_keys=True) + "\n" for row in rows]
    write_atomic(index_path(shard), "".join(lines))
    return index_path(shard)


def list_members(path: Path) -> Members:
    """{key: {extension: (offset, size)}} of every file of a tar. DataError as `index_shard` raises it."""
    try:
        with path.open("rb") as file:
            return _members(path, file)
    except _UNREADABLE as error:
        raise DataError(f"{path} is no readable tar: {shown(str(error))}", MAKE) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from error


def index_shard(path: Path, *, stills: bool = False) -> list[Clip]:
    """The clips of a tar, in its order: see `index_rows`."""
    table = TableBuilder()
    table.add(Shard(path), index_rows(Shard(path), stills=stills))
    return list(table.table())


def index_rows(shard: Shard, *, stills: bool = False) -> list[Row]:
    """Where each clip of a tar lies, and its metadata, in the order of the tar.

    A key is a member's name without its last extension, so keys may hold dots. Pictures without a video are clips
    only when `stills` are asked for. Members that are neither are left alone; nothing is ever unpickled or extracted.
    DataError names the shard when the tar is damaged, cut short, or without a clip.
    """
    wanted = (*VIDEO_EXTENSIONS, *STILL_EXTENSIONS) if stills else VIDEO_EXTENSIONS
    try:
        with shard.open() as file:
            members = _members(shard, file)
            rows = [_row(shard, key, parts, file) for key, parts in members.items() if parts.keys() & set(wanted)]
    except _UNREADABLE as error:
        raise DataError(f"{shard} is no readable tar: {shown(str(error))}", MAKE) from error
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error.strerror}", "check the path and its permissions") from error
    seen = Counter(extension for parts in members.values() for extension in parts)
    if not rows:
        what = f"its members are {', '.join(f'.{e}' for e in sorted(seen)[:5])}" if seen else "it is empty"
        hint = "data.stills=true trains on pictures" if seen.keys() & set(STILL_EXTENSIONS) else MAKE
        raise DataError(f"{shard} holds no video: {what}", hint)
    if pickles := sum(seen[extension] for extension in PICKLE_EXTENSIONS):
        log.warning("%s: ignored %d members that hold pickles", shard, pickles)
    media = {*VIDEO_EXTENSIONS, *STILL_EXTENSIONS}
    if orphans := sum("json" in parts and not parts.keys() & media for parts in members.values()):
        log.warning("%s: ignored %d entries that have metadata but no video", shard, orphans)
    pictures = sum(bool(parts.keys() & media) for parts in members.values()) - len(rows)
    if pictures:
        log.warning("%s: left out %d pictures; data.stills=true trains on them", shard, pictures)
    return rows


def _members(path: Path | Shard, file: IO[bytes]) -> Members:
    """{key: {extension: (offset, size)}} of every file of an uncompressed tar."""
    members: Members = {}
    end = 0
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for count, member in enumerate(tar):
            if member.size < 0 or count >= MOST_MEMBERS:
                raise DataError(f"{path} is damaged: member {count} has size {member.size}", "make the shard again")
            end = max(end, member.offset_data + math.ceil(member.size / BLOCK) * BLOCK)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                kind = "a link" if member.issym() or member.islnk() else "a sparse or special file"
                raise DataError(f"{path}: member '{shown(member.name)}' is {kind}", "shards may hold plain files only")
            for key, extension in _split_name(path, member.name):
                if extension in members.setdefault(key, {}):
                    raise DataError(f"{path} holds '{shown(member.name)}' twice", "give each clip its own key")
                members[key][extension] = (member.offset_data, member.size)
    _check_end(path, file, end)
    return members


def _split_name(path: Path | Shard, name: str) -> Iterator[tuple[str, str]]:
    """The (key, extension) of a member's name; nothing for hidden files and files without an extension."""
    parts = name.removeprefix("./").split("/")
    if ".." in parts or not parts[0]:
        raise DataError(f"{path}: member '{shown(name)}' points out of the shard", "name members by relative paths")
    stem, dot, extension = parts[-1].rpartition(".")
    if stem and dot and not parts[-1].startswith((".", "__")):
        yield "/".join([*parts[:-1], stem]), extension.lower()


def _check_end(path: Path | Shard, file: IO[bytes], end: int) -> None:
    """Only zeros may follow the last member: tarfile takes a cut or damaged header for the end of the archive."""
    file.seek(end)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path} is cut short: it has no end mark at byte {end:,}", "copy or make the shard again")
    while block:
        if block.strip(b"\0"):
            raise DataError(f"{path} is damaged: no valid tar header at byte {end:,}", "copy or make the shard again")
        block = file.read(1 << 20)


def _row(shard: Shard, key: str, parts: dict[str, tuple[int, int]], file: IO[bytes]) -> Row:
    where = f"clip '{shown(key)}' in {shard}"
    videos = parts.keys() & set(VIDEO_EXTENSIONS)
    if len(videos) > 1:
        raise DataError(f"{where} has {len(videos)} videos", "give each clip its own key")
    metadata = _metadata(where, parts.get("json"), file)
    frames, caption = _number(where, metadata, "frames", 1, 1e9), metadata.get("caption")
    source = source_of(metadata, key)
    _check_texts(where, {"caption": caption, "source": source if source != key else ""})
    return {
        "key": key,
        "members": parts,
        "source": source,
        "fps": _number(where, metadata, "fps", 1e-3, 1e5),
        "frames": None if frames is None else int(frames),
        "motion_bucket_id": _number(where, metadata, "motion_bucket_id", 0, 255),
        "caption": caption if isinstance(caption, str) else None,
    }


def source_of(metadata: dict[str, Any], key: str) -> str:
    """The video that a clip was cut from: by name, address, or an object that holds either; else the clip's own key."""
    source = metadata.get("source") or metadata.get("url") or key
    if isinstance(source, dict):
        source = source.get("path") or source.get("url") or key
    return str(source)


def _metadata(where: str, place: tuple[int, int] | None, file: IO[bytes]) -> dict[str, Any]:
    if place is None:
        return {}
    offset, size = place
    if size > LARGEST_METADATA:
        raise DataError(f"{where}: its .json has {size:,} bytes", f"at most {LARGEST_METADATA:,} are read")
    file.seek(offset)
    try:
        metadata = json.loads(file.read(size))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: its .json cannot be parsed: {shown(str(error))}", "write one JSON object per clip"
        ) from error
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: its .json is a {type(metadata).__name__}", "write one JSON object per clip")
    return metadata


def _check_texts(where: str, texts: dict[str, Any]) -> None:
    """JSON can hold halves of characters, which nothing can write or read as words."""
    for field, text in texts.items():
        try:
            (text if isinstance(text, str) else "").encode()
        except UnicodeEncodeError as error:
            message = f"{where}: its .json says {field}='{shown(text)}'"
            raise DataError(message, "write whole characters") from error


def _number(where: str, metadata: dict[str, Any], field: str, low: float, high: float) -> float | None:
    value = metadata.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(
            f"{where}: its .json says {field}={shown(repr(value))}", f"a number from {low:g} to {high:g} is wanted"
        )
    return float(value)
