"""The index of a shard: one row for each clip, where its members stand and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from svdtrain.foundation.errors import DataError, shown

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from svdtrain.data.clip import Shard

VIDEO_EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi")
STILL_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
LARGEST_VIDEO = 2 << 30
HINT = "copy or prepare the dataset again"
Row = dict[str, Any]
"""Of the fields of IndexRow; others are left alone."""

_Count = Annotated[int, Field(ge=0, lt=2**62)]
_Side = Annotated[int, Field(ge=1, le=2**16)]


@dataclass
class IndexRow:
    """One clip, as a line of NAME.idx.jsonl states it."""

    key: str
    members: dict[str, tuple[_Count, _Count]]
    """Extension -> (offset, size)."""
    source: str | None = None
    fps: Annotated[float, Field(gt=0, le=1e5)] | None = None
    frames: Annotated[int, Field(ge=1, le=10**9)] | None = None
    height: _Side | None = None
    width: _Side | None = None
    motion_bucket_id: Annotated[float, Field(ge=0, le=255)] | None = None
    caption: str | None = None
    bucket: tuple[_Side, _Side, _Side] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    verified: bool | None = None


def medium(members: Container[str]) -> str | None:
    """The extension of the video, or of the still where there is no video; None when there is neither."""
    if "mp4" in members:
        return "mp4"
    return next((extension for extension in (*VIDEO_EXTENSIONS, *STILL_EXTENSIONS) if extension in members), None)


def parse_index(text: bytes, shard: Shard) -> list[Row]:
    """The rows of an index file, as fast as JSON is parsed at all. DataError names a line that is no JSON object."""
    try:
        rows = from_json(b"[" + text.strip().replace(b"\n", b",") + b"]", cache_strings="keys")
    except ValueError:
        rows = [_parsed(line, number, shard) for number, line in enumerate(text.splitlines(), 1)]
    return rows


def explain(rows: Iterable[Row], shard: Shard) -> None:
    """Raise DataError for the first row with a field that is not as IndexRow states it."""
    adapter = TypeAdapter(IndexRow)
    for number, row in enumerate(rows, 1):
        try:
            adapter.validate_python(row)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = shown(".".join(map(str, first["loc"]))) or "the row"
            raise DataError(f"line {number} of the index of {shard}: {field}: {first['msg']}", HINT) from error


def _parsed(line: bytes, number: int, shard: Shard) -> Row:
    try:
        return from_json(line)
    except ValueError as error:
        raise DataError(f"line {number} of the index of {shard} cannot be parsed: {shown(str(error))}", HINT) from error
