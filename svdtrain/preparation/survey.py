"""What a dataset, some shards or a plain folder of videos hold, read from indexes and headers; no clip is decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from svdtrain.data.decoding import probe
from svdtrain.data.index import STILL_EXTENSIONS, VIDEO_EXTENSIONS
from svdtrain.data.manifest import read_manifest
from svdtrain.data.shards import index_path
from svdtrain.data.stills import decode_still
from svdtrain.foundation.errors import DataError
from svdtrain.preparation.discovery import list_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from svdtrain.data.clip import Clip
    from svdtrain.data.isolation import DecodeChild
    from svdtrain.preparation.records import Source

Split = Literal["train", "held_out", ""]
SCORES = ("motion", "blur", "exposure_clipped", "black", "frozen", "repeated", "crop_loss")
"""Numbers of an index row that are shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One clip or file. What is not known is None."""

    key: str
    source: str
    split: Split
    place: Clip | Source
    still: bool = False
    size: tuple[int, int] | None = None
    """Height and width."""
    frames: int | None = None
    fps: float | None = None
    motion_bucket_id: float | None = None
    caption: str | None = None
    bucket: tuple[int, int, int] | None = None
    verified: bool = False
    sha256: str | None = None
    doubt: str = ""
    """Why the fast reader is not trusted with it."""
    scores: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def seconds(self) -> float | None:
        """Its length."""
        return self.frames / self.fps if self.frames and self.fps and not self.still else None


@dataclass(frozen=True)
class Survey:
    """All that is known before anything is decoded."""

    kind: Literal["dataset", "shards", "folder"]
    source: str
    rows: tuple[Row, ...]
    shards: int = 0
    refused: tuple[tuple[str, DataError], ...] = ()
    """Clips and files that no reader takes, and why."""
    rejected: tuple[dict[str, Any], ...] = ()
    """The rows of rejected.jsonl; of a folder, what would stand there before any file is opened."""
    created_by: str = ""


def survey(source: str, most_probed: int, child: DecodeChild | None = None) -> Survey:
    """Look at what data.source would name, or at a folder before it is prepared.

    Headers are read of at most `most_probed` clips that no index describes, spread over all; in `child`, where there is
    one. DataError when there is nothing to look at, or when a shard, an index or a caption is damaged.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and not any(any(place.glob("*.tar")) for place in (folder, folder / "shards")):
        listing = list_sources(folder)
        rows = [Row(one.name, one.origin, "", one, one.kind == "still", caption=one.caption) for one in listing.sources]
        probed, refused = _probed(rows, most_probed, child)
        rejected = tuple(why.row(name) for name, why in listing.rejected)
        return Survey("folder", source, tuple(probed), refused=tuple(refused), rejected=rejected)
    rows, shards = _clips(source)
    probed, refused = _probed(rows, most_probed, child)
    created_by = str(_json(folder / "manifest.json").get("created_by", "")) if folder.is_dir() else ""
    return Survey(
        kind="dataset" if created_by else "shards",
        source=source,
        rows=tuple(probed),
        shards=shards,
        refused=tuple(refused),
        rejected=tuple(_lines(folder / "rejected.jsonl")) if created_by else (),
        created_by=created_by,
    )


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread."""
    chosen = min(count, most)
    return [place * count // chosen for place in range(chosen)]


def equal_clips(rows: Iterable[Row]) -> list[list[str]]:
    """Groups of keys whose videos are the same byte for byte."""
    alike: dict[str, list[str]] = {}
    for row in rows:
        if row.sha256:
            alike.setdefault(row.sha256, []).append(row.key)
    return sorted(sorted(keys) for keys in alike.values() if len(keys) > 1)


def _clips(source: str) -> tuple[list[Row], int]:
    """Every clip and still of the shards, and how many shards there are."""
    manifest = read_manifest(source, stills=True)
    splits: tuple[tuple[Split, Iterable[Clip]], ...] = (("train", manifest.train), ("held_out", manifest.held_out))
    indexes: dict[Path, dict[int, dict[str, Any]]] = {}
    rows: list[Row] = []
    for split, clips in splits:
        for clip in clips:
            shard = clip.shard.path
            if shard not in indexes:
                indexes[shard] = _scores(shard)
            rows.append(
                Row(
                    key=clip.key,
                    source=clip.source,
                    split=split,
                    place=clip,
                    still=clip.still,
                    size=clip.picture,
                    frames=clip.frames,
                    fps=clip.fps,
                    motion_bucket_id=clip.motion_bucket_id,
                    caption=clip.read_caption() or None,
                    bucket=clip.bucket,
                    verified=clip.verified,
                    sha256=clip.sha256,
                    scores=indexes[shard].get(clip.offset, {}),
                )
            )
    return rows, len(indexes)


def _scores(shard: Path) -> dict[int, dict[str, float]]:
    """{offset of the video or still: scores} by the index beside a shard; empty where there is none."""
    found: dict[int, dict[str, float]] = {}
    for row in _lines(index_path(shard)):
        scores = {name: float(row[name]) for name in SCORES if isinstance(row.get(name), int | float)}
        for extension, (offset, _) in row.get("members", {}).items():
            if extension in (*VIDEO_EXTENSIONS, *STILL_EXTENSIONS):
                found[offset] = scores
    return found


def _probed(rows: list[Row], most: int, child: DecodeChild | None) -> tuple[list[Row], list[tuple[str, DataError]]]:
    """The rows, completed by their headers where their size is not known; and those that cannot be read."""
    unknown = [place for place, row in enumerate(rows) if row.size is None]
    refused: list[tuple[str, DataError]] = []
    bad: set[int] = set()
    for place in (unknown[index] for index in spread(len(unknown), most)):
        try:
            rows[place] = _with_header(rows[place], child)
        except DataError as error:
            refused.append((rows[place].key, error))
            bad.add(place)
    return [row for place, row in enumerate(rows) if place not in bad], refused


def _with_header(row: Row, child: DecodeChild | None) -> Row:
    data = row.place.read()
    if row.still:
        height, width = decode_still(data, row.key).shape[1:3]
        return replace(row, size=(height, width), frames=1)
    info = child.probe(data, row.key) if child else probe(data, row.key)
    size, fps = (info.height, info.width), row.fps or info.fps
    return replace(row, size=size, frames=info.frames, fps=fps, doubt=info.doubt)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file; none where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number}: no JSON: {error}", "prepare the dataset again") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number}: no JSON object", "prepare the dataset again")
            yield row


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "prepare the dataset again") from error
    return found if isinstance(found, dict) else {}
