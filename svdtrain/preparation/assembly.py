"""The end of preparation: near duplicates out, held-out sources chosen, shards, indexes and lists written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from svdtrain import __version__
from svdtrain.data.shards import write_index, write_samples
from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.files import sha256_of
from svdtrain.preparation.described import described
from svdtrain.preparation.journal import settings_of, write_whole, writing
from svdtrain.preparation.records import REASONS, Rejection, Source, SourceResult
from svdtrain.preparation.selection import Kept, select, with_edited_captions, with_motion_ids, with_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from svdtrain.config.preparation import PrepareConfig
    from svdtrain.preparation.journal import Journal

FORMAT = 1
TABLE_ROWS = 17
"""Of the table of motion scores in the manifest."""


def sources_digest(sources: Sequence[Source], hashes: dict[str, str]) -> str:
    """sha256 over the name, bytes and caption of every source."""
    rows = [[source.name, hashes[source.name], source.caption] for source in sources]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def assemble(
    sources: Sequence[Source],
    results: dict[str, SourceResult],
    rejected_files: Sequence[tuple[str, Rejection]],
    config: PrepareConfig,
    journal: Journal,
    out: Path,
) -> dict[str, Any]:
    """Write the dataset to `out` from the results by source name; the manifest, last of all, is returned.

    DataError when fewer than two clips are left; what was rejected is written even then.
    """
    shutil.rmtree(out / "shards", ignore_errors=True)
    for partial in out.glob(".partial-*"):
        partial.unlink()
    rejected = list(rejected_files)
    kept, alike = select(sources, results, rejected, config, journal)
    rows = sorted((why.row(name) for name, why in rejected), key=lambda row: (row["source"], row["start"] or 0.0))
    write_whole(out / "rejected.jsonl", _lines(rows))
    reasons = dict(sorted(Counter(row["reason"] for row in rows).items()))
    if len(kept) < 2:
        hint = f"{out / 'rejected.jsonl'} says why: {in_words(reasons)}" if rows else "two videos, or a longer one"
        raise DataError(f"{len(kept)} clips came out of {len(sources)} sources, at least 2 are needed", hint)
    kept = with_edited_captions(with_motion_ids(with_split(described(kept, config, journal)), config), config)
    counts = {
        "sources": len(sources),
        "train": sum(one.split == "train" for one in kept),
        "held_out": sum(one.split == "held_out" for one in kept),
        "rejected": reasons,
    }
    write_whole(out / "stats.json", _text(_stats(kept, rows, alike, counts)))
    manifest = {
        "format": FORMAT,
        "created_by": f"svdtrain {__version__}",
        "settings": settings_of(config),
        "sources": sources_digest(sources, {name: result.sha256 for name, result in results.items()}),
        "counts": counts,
        "buckets": _buckets(kept),
        "motion_bucket_ids": _motion_table(kept),
        "shards": [_write_shard(out, name, clips) for name, clips in _shards(kept, config.shard_megabytes << 20)],
    }
    write_whole(out / "manifest.json", _text(manifest))
    return manifest


def in_words(reasons: dict[str, int]) -> str:
    """`240 too short, 71 duplicates`, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} {REASONS[reason].replace('(s)', '' if n == 1 else 's')}" for reason, n in ordered)


def last_line(counts: dict[str, Any]) -> str:
    """`812 sources -> 1,904 clips kept, 311 rejected (240 too short, 71 duplicates)`."""
    reasons: dict[str, int] = counts["rejected"]
    why = f" ({in_words(reasons)})" if reasons else ""
    clips = counts["train"] + counts["held_out"]
    return f"{counts['sources']:,} sources -> {clips:,} clips kept, {sum(reasons.values()):,} rejected{why}"


def _shards(kept: list[Kept], most_bytes: int) -> Iterator[tuple[str, list[Kept]]]:
    """(name, clips) of each shard, train first."""
    for split in ("train", "held_out"):
        number, clips, size = 0, list[Kept](), 0
        for one in [one for one in kept if one.split == split]:
            clips.append(one)
            size += one.clip.bytes
            if size >= most_bytes:
                yield f"{split}-{number:06d}", clips
                number, clips, size = number + 1, [], 0
        if clips:
            yield f"{split}-{number:06d}", clips


def _write_shard(out: Path, name: str, clips: list[Kept]) -> dict[str, Any]:
    """Write a shard and its index; the manifest's row."""
    path = out / "shards" / f"{name}.tar"
    with writing(path):
        write_samples(path, ((one.key, _members(one)) for one in clips))
        index = write_index(path, [_row(one) for one in clips])
    return {
        "name": f"shards/{path.name}",
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "clips": len(clips),
        "index_sha256": sha256_of(index),
    }


def _members(one: Kept) -> dict[str, bytes]:
    data = one.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != one.clip.sha256:
        raise SystemFault(f"{one.path} was changed after it was written", f"remove {one.path.parent.parent}")
    metadata = {name: _row(one)[name] for name in ("fps", "frames", "source", "start", "motion_bucket_id", "caption")}
    members = {one.path.suffix[1:]: data, "json": json.dumps(metadata, sort_keys=True).encode()}
    return members | ({"txt": one.caption.encode()} if one.caption else {})


def _row(one: Kept) -> dict[str, Any]:
    """The clip's line in the index, without the places of its members."""
    clip = one.clip
    return clip.scores | {
        "key": one.key,
        "sha256": clip.sha256,
        "width": clip.width,
        "height": clip.height,
        "frames": clip.frames,
        "fps": clip.fps,
        "source": one.source.origin,
        "start": clip.start,
        "caption": one.caption,
        "motion": clip.motion,
        "motion_bucket_id": one.motion_bucket_id,
        "bucket": clip.bucket,
        "verified": clip.verified,
    }


def _buckets(kept: list[Kept]) -> list[dict[str, Any]]:
    counts = Counter(one.clip.bucket for one in kept if one.clip.bucket)
    return [{"size": list(size), "clips": clips} for size, clips in sorted(counts.items())]


def _motion_table(kept: list[Kept]) -> list[list[float]]:
    """[score, id] at even percentiles: what a motion bucket id means in this dataset."""
    pairs = sorted(
        (c.clip.motion, c.motion_bucket_id) for c in kept if c.clip.motion is not None and c.motion_bucket_id
    )
    places = sorted({round(k * (len(pairs) - 1) / (TABLE_ROWS - 1)) for k in range(TABLE_ROWS)}) if pairs else []
    return [list(pairs[place]) for place in places]


def _stats(
    kept: list[Kept], rows: list[dict[str, Any]], alike: list[list[str]], counts: dict[str, Any]
) -> dict[str, Any]:
    """Totals, and the groups of near duplicates (the first key of each was kept)."""
    seconds = defaultdict[str, float](float)
    for one in kept:
        seconds[one.split] += one.clip.frames / one.clip.fps if one.clip.fps else 0.0
    return {
        "counts": counts,
        "seconds": {split: round(total, 3) for split, total in sorted(seconds.items())},
        "sizes": _counted(f"{one.clip.width}x{one.clip.height}" for one in kept),
        "fps": _counted(f"{one.clip.fps:.4g}" for one in kept if one.clip.fps),
        "captions": sum(one.caption is not None for one in kept),
        "unverified": sum(not one.clip.verified for one in kept),
        "rejected_rows": len(rows),
        "near_duplicates": alike,
    }


def _counted(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
