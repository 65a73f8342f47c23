"""Which clips a dataset keeps, under which keys, on which side of the split, with which captions and motion ids."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from svdtrain.data.manifest import HELD_OUT_EVERY, held_out_sources
from svdtrain.preparation.captions import edit
from svdtrain.preparation.duplicates import groups
from svdtrain.preparation.motion import bucket_ids
from svdtrain.preparation.records import FinishedClip, Rejection, Source, SourceResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from svdtrain.config.preparation import PrepareConfig
    from svdtrain.preparation.journal import Journal

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Kept:
    """A clip on its way into a shard."""

    key: str
    source: Source
    clip: FinishedClip
    path: Path
    caption: str | None
    motion_bucket_id: int | None = None
    split: Split = "train"
    origin: str = ""
    """The video it was cut from, by one name for all videos that share a picture: they stand on one side of the split."""


def select(
    sources: Sequence[Source],
    results: dict[str, SourceResult],
    rejected: list[tuple[str, Rejection]],
    config: PrepareConfig,
    journal: Journal,
) -> tuple[list[Kept], list[list[str]]]:
    """The clips without duplicates, by key, and the groups of near duplicates; `rejected` gets all others."""
    first_with: dict[tuple[str, str], str] = {}
    captions: dict[tuple[str, str], str] = {}
    for source in sources:  # of equal files, the first that has one
        if source.caption:
            captions.setdefault((source.kind, results[source.name].sha256), source.caption)
    found: dict[str, Kept] = {}
    for number, source in enumerate(sources):
        result = results[source.name]
        first = first_with.setdefault((source.kind, result.sha256), source.name)
        if first != source.name:
            rejected.append((source.name, Rejection("duplicate", numbers={"of": first})))
            continue
        rejected += [(source.name, why) for why in result.rejected]
        folder = journal.clips(source.kind, result.sha256)
        slug = re.sub(r"[^a-z0-9]+", "-", source.name.rpartition("/")[2].rpartition(".")[0].lower()).strip("-")[:40]
        for place, clip in enumerate(result.clips):
            key = "-".join(part for part in (f"{number:06d}", slug.strip("-"), f"{place:03d}") if part)
            found[key] = Kept(key, source, clip, folder / clip.file, captions.get((source.kind, result.sha256)))
    alike: list[list[str]] = []
    if config.duplicate_bits is not None:
        for kind in ("video", "still"):
            signatures = {key: one.clip.signature for key, one in found.items() if one.source.kind == kind}
            alike += groups(signatures, config.duplicate_bits)
    origins = _joined([[found[key].source.origin for key in group] for group in alike])
    for first, *others in alike:
        # What one source shows again and again it may show: a camera that stands still.
        for key in [key for key in others if found[key].source.name != found[first].source.name]:
            one = found.pop(key)
            end = one.clip.start + one.clip.frames / one.clip.fps if one.clip.fps else None
            start = one.clip.start if one.clip.fps else None
            numbers = {"of": first, "frames": one.clip.frames}
            rejected.append((one.source.name, Rejection("duplicate", start, end and round(end, 6), numbers)))
    kept = [found[key] for key in sorted(found)]
    return [replace(one, origin=origins.get(one.source.origin, one.source.origin)) for one in kept], alike


def _joined(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """{name: the least name that it is linked with} for all names of groups; names of one group are linked."""
    least: dict[str, str] = {}

    def root(name: str) -> str:
        while least.setdefault(name, name) != name:
            name = least[name]
        return name

    for first, *others in groups:
        for other in others:
            low, high = sorted((root(first), root(other)))
            least[high] = low
    return {name: root(name) for name in least}


def with_motion_ids(kept: list[Kept], config: PrepareConfig) -> list[Kept]:
    """Each video clip with its motion bucket id."""
    moving = [one for one in kept if one.clip.motion is not None]
    if config.motion_bucket_id == "score":
        ids = bucket_ids([one.clip.motion or 0.0 for one in moving])
    else:
        ids = [config.motion_bucket_id] * len(moving)
    by_key = {one.key: number for one, number in zip(moving, ids, strict=True)}
    return [replace(one, motion_bucket_id=by_key.get(one.key)) for one in kept]


def with_edited_captions(kept: list[Kept], config: PrepareConfig) -> list[Kept]:
    """Each clip with its caption after find and replace and the trigger word; None stays where nothing is to be said."""
    edited = [edit(one.caption or "", config.trigger, config.find, config.replace) or None for one in kept]
    return [replace(one, caption=caption) for one, caption in zip(kept, edited, strict=True)]


def with_split(kept: list[Kept]) -> list[Kept]:
    """Held out is every tenth source of the videos, and of the stills; of a single source its last clips."""
    held: set[str] = set()
    for kind in ("video", "still"):
        clips = [one for one in kept if one.source.kind == kind]
        if chosen := held_out_sources(one.origin for one in clips):
            held |= {one.key for one in clips if one.origin in chosen}
        elif len(clips) > 1:
            held |= {one.key for one in clips[-max(1, len(clips) // HELD_OUT_EVERY) :]}
    return [replace(one, split="held_out" if one.key in held else "train") for one in kept]
