"""Every file of a folder: a source, a caption's file, or a rejection. Nothing is passed over in silence."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.data.shards import LARGEST_METADATA, Members, list_members, source_of
from svdtrain.foundation.errors import DataError
from svdtrain.preparation.captions import read_captions
from svdtrain.preparation.records import (
    SOURCE_EXTENSIONS,
    STILL_EXTENSIONS,
    Rejection,
    Source,
    is_hidden,
    kind_of,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = {"metadata.csv", "metadata.jsonl", "prompt.txt", "videos.txt"}
SHARD_RECORDS = (".parquet", "_stats.json", ".idx.jsonl")
"""What others write beside a tar, by the end of its name."""
LARGEST_CAPTION = 1 << 16


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    sources: tuple[Source, ...]
    """By name."""
    rejected: tuple[tuple[str, Rejection], ...]
    """(name, why) of every other file that is nobody's caption or record, by name."""


def list_sources(folder: Path) -> Listing:
    """Videos, pictures and members of tars under a folder, each with its caption.

    DataError when there is none, or when captions cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"source={folder}: there is no such folder", "source=FOLDER of videos, pictures or shards")
    sources: list[Source] = []
    rejected: list[tuple[str, Rejection]] = []
    refused: list[tuple[Path, DataError]] = []
    captions = read_captions(folder, refused)
    for path, error in refused:
        detail = error.message.removeprefix(f"{path}: ")
        rejected.append((path.relative_to(folder).as_posix(), Rejection("bad_caption", numbers={"detail": detail})))
    files = sorted(_walk(folder, rejected), key=lambda path: path.relative_to(folder).as_posix())
    names = {path.relative_to(folder).as_posix() for path in files}
    stems = {path.with_suffix("") for path in files if kind_of(path.name) or path.suffix.lower() == ".tar"}
    for path in files:
        name = path.relative_to(folder).as_posix()
        if is_hidden(path.relative_to(folder)):
            rejected.append((name, Rejection("hidden")))
        elif path.suffix.lower() == ".tar":
            _open_tar(path, name, sources, rejected)
        elif kind := kind_of(path.name):
            stat = path.stat()
            caption = captions.get(name)
            sources.append(Source(name, kind, path, None, stat.st_size, stat.st_mtime_ns, plain(name), caption))
        elif not _is_record(path, stems):
            rejected.append((name, Rejection("no_media")))
    rejected += [(name, Rejection("no_such_file")) for name in captions.keys() - names]
    if not sources:
        known = ", ".join(f".{extension}" for extension in (*SOURCE_EXTENSIONS, *STILL_EXTENSIONS, "tar"))
        raise DataError(f"source={folder}: it holds no videos or pictures", f"files that end in {known} are read")
    return Listing(tuple(sorted(sources, key=lambda source: source.name)), tuple(sorted(rejected, key=lambda r: r[0])))


def _walk(folder: Path, rejected: list[tuple[str, Rejection]]) -> Iterator[Path]:
    """Every file; folders that cannot be opened, and links to folders, are rejected."""

    def unreadable(error: OSError) -> None:
        name = Path(os.fsdecode(error.filename)).relative_to(folder).as_posix()
        rejected.append((name, Rejection("unreadable", numbers={"detail": error.strerror})))

    for root, folders, names in os.walk(folder, onerror=unreadable):
        for name in folders:
            if (Path(root) / name).is_symlink():
                rejected.append(((Path(root) / name).relative_to(folder).as_posix(), Rejection("linked_folder")))
        for path in (Path(root) / name for name in names):
            try:
                reason = None if path.is_file() else Rejection("no_media", numbers={"detail": "no plain file"})
            except OSError as error:
                reason = Rejection("unreadable", numbers={"detail": error.strerror})
            if reason is None:
                yield path
            else:
                rejected.append((path.relative_to(folder).as_posix(), reason))


def _is_record(path: Path, stems: set[Path]) -> bool:
    """Whether a file is somebody's caption, a table of captions, or what others write beside a tar."""
    if path.name in TABLES or (path.suffix.lower() == ".txt" and path.with_suffix("") in stems):
        return True
    ends = [end for end in SHARD_RECORDS if path.name.endswith(end)]
    return any(path.with_name(path.name.removesuffix(end)) in stems for end in ends)


def _open_tar(path: Path, name: str, sources: list[Source], rejected: list[tuple[str, Rejection]]) -> None:
    """The members of a tar as sources: as video2dataset, img2dataset and webdataset lay them out."""
    try:
        members: Members = list_members(path)
    except DataError as error:
        rejected.append((name, Rejection("damaged", numbers={"detail": error.message.replace(str(path), "the tar")})))
        return
    stat = path.stat()
    for key, parts in members.items():
        where = f"{name}/{key}"
        try:
            metadata = _metadata(path, parts.get("json"))
            caption = _caption(path, parts.get("txt")) or metadata.get("caption")
            caption = caption.strip() if isinstance(caption, str) else ""
            caption.encode()
        except (ValueError, RecursionError) as error:
            detail = f"its metadata cannot be read: {error}"
            rejected.append((where, Rejection("damaged", numbers={"detail": detail})))
            continue
        media = [extension for extension in parts if kind_of(f"x.{extension}")]
        if not media:
            status = {"detail": str(metadata["status"])[:200]} if "status" in metadata else {}
            rejected.append((where, Rejection("failed_entry", numbers=status)))
        for extension in media:
            member = f"{where}.{extension}"
            offset, size = parts[extension]
            origin = plain(source_of(metadata, member))
            if kind := kind_of(member):
                sources.append(Source(member, kind, path, offset, size, stat.st_mtime_ns, origin, caption or None))


def _metadata(path: Path, place: tuple[int, int] | None) -> dict[str, Any]:
    values = json.loads(_read(path, place, LARGEST_METADATA)) if place else {}
    return values if isinstance(values, dict) else {}


def _caption(path: Path, place: tuple[int, int] | None) -> str:
    return _read(path, place, LARGEST_CAPTION).decode("utf-8-sig") if place else ""


def _read(path: Path, place: tuple[int, int], most: int) -> bytes:
    offset, size = place
    if size > most:
        raise ValueError(f"{size:,} bytes, at most {most:,} are read")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
