"""Captions as people keep them: a text file beside each video, a metadata table, or two lists of lines."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from svdtrain.data.clip import begun_with
from svdtrain.foundation.errors import DataError
from svdtrain.preparation.records import is_hidden, kind_of, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_CAPTION = 1 << 16
LARGEST_TABLE = 1 << 30
CSV, JSONL, PROMPTS, VIDEOS = "metadata.csv", "metadata.jsonl", "prompt.txt", "videos.txt"
TEXT_COLUMNS = ("text", "caption")
WANTED = "a row has file_name, and text or caption"
UTF8_BOM = b"\xef\xbb\xbf"


class Found(NamedTuple):
    """A caption, the path of its file as it was written, and where it was read."""

    name: str
    caption: str
    where: str


def read_captions(folder: Path, refused: list[tuple[Path, DataError]] | None = None) -> dict[str, str]:
    """{path from the folder (posix): caption} of a folder and the folders in it, hidden ones aside.

    Read are `a.txt` beside `a.mp4`; `metadata.csv` and `metadata.jsonl` with `file_name` and `text` or `caption`; and
    `prompt.txt` with `videos.txt`, line by line. Paths in a table or list start at its own folder; whether there is
    such a file is not asked. DataError names file and byte or line where a caption is empty, too long, no clean UTF-8,
    or contradicts another; where `refused` is given, a text file that cannot be used goes there instead.
    """
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    files = sorted(path for path in files if not is_hidden(path.relative_to(folder)) and os.path.isfile(path))  # noqa: PTH113
    media: dict[Path, list[Path]] = {}
    for path in files:
        if kind_of(path.name) or path.suffix.lower() == ".tar":
            media.setdefault(path.with_suffix(""), []).append(path)
    captions: dict[str, Found] = {}
    for path in files:
        for found in _captions_in(path, media.get(path.with_suffix(""), []), refused):
            name = _from_folder(found, path, folder)
            before = captions.setdefault(name, found)
            if before.caption != found.caption:
                raise DataError(f"{name} has two captions, in {before.where} and in {found.where}", "keep one of them")
    return {name: found.caption for name, found in captions.items()}


def edit(caption: str, trigger: str, find: str, replace: str) -> str:
    """The caption with each `find` replaced (none where it is empty), and the trigger word before it, once."""
    return begun_with(trigger, caption.replace(find, replace).strip() if find else caption)


def _captions_in(path: Path, media: list[Path], refused: list[tuple[Path, DataError]] | None) -> Iterator[Found]:
    """`media`: the files that it stands beside, named like it but for the extension."""
    halves = {PROMPTS: VIDEOS, VIDEOS: PROMPTS}
    if path.name == CSV:
        yield from _csv(path)
    elif path.name == JSONL:
        yield from _jsonl(path)
    elif path.name == PROMPTS and path.with_name(VIDEOS).is_file():
        yield from _two_lists(path, path.with_name(VIDEOS))
    elif path.suffix.lower() == ".txt" and media:
        try:
            caption = _checked(_text(path, LARGEST_CAPTION), f"{path}: byte 0")
        except DataError as error:
            if refused is None:
                raise
            refused.append((path, error))
            return
        yield from (Found(one.name, caption, str(path)) for one in media)
    elif path.name in halves and not path.with_name(halves[path.name]).is_file():
        raise DataError(f"{path} stands without {halves[path.name]}", "a line of each for every video, or remove it")


def _csv(path: Path) -> Iterator[Found]:
    rows = csv.DictReader(io.StringIO(_text(path, LARGEST_TABLE), newline=""), strict=True, skipinitialspace=True)
    try:
        for row in rows:
            if None in row:
                where = f"{path}: line {rows.line_num}"
                raise DataError(f"{where}: it has more fields than the header", "put quotes around what holds commas")
            yield _row(row, f"{path}: line {rows.line_num}")
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num + 1}: {error}", WANTED) from error


def _jsonl(path: Path) -> Iterator[Found]:
    for number, line in enumerate(_lines(_text(path, LARGEST_TABLE)), 1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: no JSON: {error}", "write one JSON object per line") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: it is a {type(row).__name__}", "write one JSON object per line")
        yield _row(row, where)


def _row(row: dict[Any, Any], where: str) -> Found:
    name = row.get("file_name")
    texts = [row[column] for column in TEXT_COLUMNS if row.get(column) is not None]
    text = next((text for text in texts if text), texts[0] if texts else None)
    if not isinstance(name, str) or not isinstance(text, str):
        seen = ", ".join(str(column) for column, value in row.items() if column and value is not None)
        raise DataError(f"{where}: it has {seen[:80] or 'nothing'}", WANTED)
    return Found(name, _checked(text, where), where)


def _two_lists(prompts: Path, videos: Path) -> Iterator[Found]:
    captions, names = (_lines(_text(path, LARGEST_TABLE)) for path in (prompts, videos))
    if len(captions) != len(names):
        raise DataError(
            f"{prompts} has {len(captions)} lines, {VIDEOS} beside it {len(names)}", "one line each a video"
        )
    for number, (caption, name) in enumerate(zip(captions, names, strict=True), 1):
        where = f"{prompts}: line {number}"
        yield Found(name.strip(), _checked(caption, where), where)


def _from_folder(found: Found, path: Path, folder: Path) -> str:
    """The captioned file's path from the folder."""
    name = PurePosixPath(found.name)
    if not found.name or name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"{found.where}: {found.name!r} is no path inside {path.parent}", "name files by relative paths"
        )
    return (PurePosixPath(path.parent.relative_to(folder).as_posix()) / name).as_posix()


def _text(path: Path, largest: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    if len(data) > largest:
        raise DataError(f"{path}: byte {largest}: the text goes on, {largest:,} bytes are read", "shorten it")
    mark = len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0
    try:
        return data[mark:].decode()
    except UnicodeDecodeError as error:
        seen = data[mark + error.start : mark + error.start + 4]
        raise DataError(f"{path}: byte {mark + error.start}: {seen!r} is no UTF-8", "save it as UTF-8") from error


def _checked(text: str, where: str) -> str:
    """The caption without blanks around it."""
    caption = text.strip()
    if not caption:
        raise DataError(f"{where}: the caption is empty", "write one, or remove its file or row")
    if plain(caption) != caption:
        raise DataError(f"{where}: half of a character is missing", "write the caption again")
    if (size := len(caption.encode())) > LARGEST_CAPTION:
        raise DataError(f"{where}: the caption has {size:,} bytes", f"at most {LARGEST_CAPTION:,} are read")
    return caption


def _lines(text: str) -> list[str]:
    """As an editor counts them: other separators of Unicode may stand inside a caption."""
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
