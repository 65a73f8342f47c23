"""WebDataset shards: written by webdataset's own TarWriter, byte for byte reproducible; read through an index."""

from __future__ import annotations

import json
import logging
import math
import tarfile
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from svdtrain.data.clip import Clip
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

VIDEO_EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi")
PICKLE_EXTENSIONS = ("pickle", "pkl", "pyd", "pth", "pt", "ckpt", "joblib")
LARGEST_VIDEO = 2 << 30
LARGEST_METADATA = 1 << 20
MAKE = "a shard is an uncompressed tar of KEY.mp4 and KEY.json: python scripts/pack_clips.py FOLDER OUT makes them"
MOST_MEMBERS = 10_000_000
BLOCK = tarfile.BLOCKSIZE

log = logging.getLogger(__name__)
Members = dict[str, dict[str, tuple[int, int]]]


def write_shard(path: Path, clips: Iterable[tuple[str, bytes, dict[str, Any]]]) -> int:
    """Write (key, mp4 bytes, metadata) clips to one tar; returns how many. The file appears only when it is whole."""
    from webdataset.writer import TarWriter

    count = 0
    with (
        replacing(path) as partial,
        TarWriter(str(partial), user="svdtrain", group="svdtrain", mode=0o644, mtime=0) as writer,
    ):
        for key, mp4, metadata in clips:
            writer.write({"__key__": key, "mp4": mp4, "json": json.dumps(metadata, sort_keys=True).encode()})
            count += 1
    return count


def index_shard(path: Path) -> list[Clip]:
    """Where each clip of a tar lies, and its metadata, in the order of the tar.

    A key is a member's name without its last extension, so keys may hold dots. Members that are neither videos nor
    their metadata are left alone; nothing is ever unpickled or extracted. DataError names the shard when the tar is
    damaged, cut short, or without a video.
    """
    try:
        with path.open("rb") as file:
            members = _members(path, file)
            clips = [_clip(path, key, parts, file) for key, parts in members.items() if _video(parts)]
    except tarfile.TarError as error:
        raise DataError(f"{path} is no readable tar: {error}", MAKE) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from error
    seen = Counter(extension for parts in members.values() for extension in parts)
    if not clips:
        what = f"its members are {', '.join(f'.{e}' for e in sorted(seen)[:5])}" if seen else "it is empty"
        raise DataError(f"{path} holds no video: {what}", MAKE)
    if pickles := sum(seen[extension] for extension in PICKLE_EXTENSIONS):
        log.warning("%s: ignored %d members that hold pickles", path, pickles)
    if orphans := sum("json" in parts and not _video(parts) for parts in members.values()):
        log.warning("%s: ignored %d entries that have metadata but no video", path, orphans)
    return clips


def _members(path: Path, file: IO[bytes]) -> Members:
    """{key: {extension: (offset, size)}} of every file of an uncompressed tar."""
    members: Members = {}
    end = 0
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for count, member in enumerate(tar):
            if member.size < 0 or count >= MOST_MEMBERS:
                raise DataError(f"{path} is damaged: member {count} has size {member.size}", "make the shard again")
            end = member.offset_data + math.ceil(member.size / BLOCK) * BLOCK
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                kind = "a link" if member.issym() or member.islnk() else "a sparse or special file"
                raise DataError(f"{path}: member {member.name!r} is {kind}", "shards may hold plain files only")
            for key, extension in _split_name(path, member.name):
                if extension in members.setdefault(key, {}):
                    raise DataError(f"{path} holds {member.name!r} twice", "give each clip its own key")
                members[key][extension] = (member.offset_data, member.size)
    _check_end(path, file, end)
    return members


def _split_name(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """The (key, extension) of a member's name; nothing for hidden files and files without an extension."""
    parts = name.removeprefix("./").split("/")
    if ".." in parts or not parts[0]:
        raise DataError(f"{path}: member {name!r} points out of the shard", "name members by relative paths")
    stem, dot, extension = parts[-1].rpartition(".")
    if stem and dot and not parts[-1].startswith((".", "__")):
        yield "/".join([*parts[:-1], stem]), extension.lower()


def _check_end(path: Path, file: IO[bytes], end: int) -> None:
    """Only zeros may follow the last member: tarfile takes a cut or damaged header for the end of the archive."""
    file.seek(end)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path} is cut short: it has no end mark at byte {end:,}", "copy or make the shard again")
    while block:
        if block.strip(b"\0"):
            raise DataError(f"{path} is damaged: no valid tar header at byte {end:,}", "copy or make the shard again")
        block = file.read(1 << 20)


def _video(parts: dict[str, tuple[int, int]]) -> list[tuple[int, int]]:
    return [parts[extension] for extension in VIDEO_EXTENSIONS if extension in parts]


def _clip(path: Path, key: str, parts: dict[str, tuple[int, int]], file: IO[bytes]) -> Clip:
    where = f"clip '{key}' in {path}"
    videos = _video(parts)
    if len(videos) > 1:
        raise DataError(f"{where} has {len(videos)} videos", "give each clip its own key")
    offset, size = videos[0]
    if not 0 < size <= LARGEST_VIDEO:
        raise DataError(f"{where} has {size:,} bytes", f"a clip has between 1 and {LARGEST_VIDEO:,} bytes: cut it")
    metadata = _metadata(where, parts.get("json"), file)
    source = metadata.get("source", metadata.get("url", key))
    if isinstance(source, dict):
        source = source.get("path", source.get("url", key))
    frames = _number(where, metadata, "frames", 1, 1e9)
    return Clip(
        key=key,
        shard=path,
        offset=offset,
        size=size,
        source=str(source),
        fps=_number(where, metadata, "fps", 1e-3, 1e5),
        frames=None if frames is None else int(frames),
        motion_bucket_id=_number(where, metadata, "motion_bucket_id", 0, 255),
    )


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
        raise DataError(f"{where}: its .json cannot be parsed: {error}", "write one JSON object per clip") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: its .json is a {type(metadata).__name__}", "write one JSON object per clip")
    return metadata


def _number(where: str, metadata: dict[str, Any], field: str, low: float, high: float) -> float | None:
    value = metadata.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(f"{where}: its .json says {field}={value!r}", f"a number from {low:g} to {high:g} is wanted")
    return float(value)
