"""Every file of a folder: a source, a caption's file, or a rejection. Nothing is passed over in silence."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.data.shards import LARGEST_METADATA, VIDEO_EXTENSIONS, Members, list_members
from svdtrain.foundation.errors import DataError
from svdtrain.preparation.captions import read_captions
from svdtrain.preparation.records import Rejection, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE_EXTENSIONS = (*VIDEO_EXTENSIONS, "ts", "mpg", "mpeg", "flv", "wmv", "gif")
STILL_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp")
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
    captions = read_captions(folder)
    sources: list[Source] = []
    rejected: list[tuple[str, Rejection]] = []
    files = sorted(_walk(folder, rejected), key=lambda path: path.relative_to(folder).as_posix())
    names = {path.relative_to(folder).as_posix() for path in files}
    stems = {path.with_suffix("") for path in files if _kind(path.name) or path.suffix.lower() == ".tar"}
    for path in files:
        name = path.relative_to(folder).as_posix()
        if path.name.startswith("."):
            rejected.append((name, Rejection("hidden")))
        elif path.suffix.lower() == ".tar":
            _open_tar(path, name, sources, rejected)
        elif kind := _kind(path.name):
            stat = path.stat()
            caption = captions.get(name)
            sources.append(Source(name, kind, path, None, stat.st_size, stat.st_mtime_ns, name, caption))
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
            if path.is_file():
                yield path
            else:
                numbers = {"detail": "a broken link, or no plain file"}
                rejected.append((path.relative_to(folder).as_posix(), Rejection("no_media", numbers=numbers)))


def _kind(name: str) -> Any:  # noqa: ANN401
    extension = name.rpartition(".")[2].lower()
    return "video" if extension in SOURCE_EXTENSIONS else "still" if extension in STILL_EXTENSIONS else None


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
        except (ValueError, RecursionError) as error:
            detail = f"its metadata cannot be read: {error}"
            rejected.append((where, Rejection("damaged", numbers={"detail": detail})))
            continue
        media = [extension for extension in parts if _kind(f"x.{extension}")]
        if not media:
            status = {"detail": str(metadata["status"])[:200]} if "status" in metadata else {}
            rejected.append((where, Rejection("failed_entry", numbers=status)))
        for extension in media:
            member = f"{where}.{extension}"
            offset, size = parts[extension]
            origin = metadata.get("source") or metadata.get("url") or member
            text = caption.strip() if isinstance(caption, str) and caption.strip() else None
            kind, changed = _kind(member), stat.st_mtime_ns
            sources.append(Source(member, kind, path, offset, size, changed, str(origin), text))


def _metadata(path: Path, place: tuple[int, int] | None) -> dict[str, Any]:
    values = json.loads(_read(path, place, LARGEST_METADATA)) if place else {}
    return values if isinstance(values, dict) else {}


def _caption(path: Path, place: tuple[int, int] | None) -> str:
    return _read(path, place, LARGEST_CAPTION).decode() if place else ""


def _read(path: Path, place: tuple[int, int], most: int) -> bytes:
    offset, size = place
    if size > most:
        raise ValueError(f"{size:,} bytes, at most {most:,} are read")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
