"""The list of clips: what the shards of a source hold, what is held out, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from svdtrain.data.index import Row, parse_index
from svdtrain.data.shard_cache import ShardCache
from svdtrain.data.shards import index_rows
from svdtrain.data.sources import WANTED, ListedShard, list_shards
from svdtrain.data.table import ClipTable, TableBuilder
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.garbage import uncollected
from svdtrain.foundation.hardware import is_first_of_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HELD_OUT_EVERY = 10

log = logging.getLogger(__name__)


class WeightedSource(NamedTuple):
    """One of several sources that are mixed."""

    source: str | list[str]
    weight: float


Source = str | list[str] | list[WeightedSource]
"""An address, several that make one dataset, or several datasets that are mixed by weight."""


@dataclass(frozen=True)
class Summary:
    """A dataset in a few numbers."""

    train_clips: int | None
    """None, here and below: nobody has listed them."""
    held_out_clips: int
    train_sources: int | None
    held_out_sources: int
    shards: int
    bytes: int | None
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Manifest:
    """The clips of a dataset."""

    train: ClipTable
    held_out: ClipTable
    weights: tuple[float, ...] = (1.0,)
    """Of each entry of data.source."""
    sha256: tuple[str, ...] = ()
    """Of each shard, where a manifest knows it."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every clip's split, key, place and size, and the shards' own where they are known.

        Where the shards lie does not matter.
        """
        digest = hashlib.sha256(repr((self.sha256, self.weights)).encode())
        for split, clips in (("train", self.train), ("held_out", self.held_out)):
            digest.update(f"{split} {len(clips)}\n".encode())
            for key in clips.every_key():
                digest.update(f"{key}\n".encode("utf-8", "surrogateescape"))
            for name in ("offset", "size"):
                digest.update(clips.number(name).tobytes())
            digest.update(clips.source_N.tobytes())
        return digest.hexdigest()

    def describe(self) -> Summary:
        """Counts of clips, sources and shards, and the bytes of video."""
        both = (self.train, self.held_out)
        return Summary(
            train_clips=len(self.train),
            held_out_clips=len(self.held_out),
            train_sources=len(set(self.train.every_source())),
            held_out_sources=len(set(self.held_out.every_source())),
            shards=len(np.unique(np.concatenate([clips.shard_N for clips in both]))),
            bytes=int(sum(clips.number("size").sum() for clips in both)),
            fingerprint=self.fingerprint,
        )


def read_manifest(
    source: Source, *, stills: bool = False, full: bool = False, cache: ShardCache | None = None
) -> Manifest:
    """List every clip of a source: by the indexes that a manifest vouches for, else by looking through the shards.

    Sizes of shards and hashes of indexes must be the manifest's; `full` reads every shard to compare its hash too (on
    the first process of each node). Held out are the shards named held_out-*, or else every tenth source video.
    """
    weighted = [entry for entry in source if isinstance(entry, WeightedSource)]
    plain = source if isinstance(source, str) else [entry for entry in source if isinstance(entry, str)]
    entries = weighted or [WeightedSource(plain, 1.0)]
    if len(entries) > np.iinfo(np.int16).max:
        raise DataError(f"data.source names {len(entries):,} sources to mix", "join some of them")
    builder = TableBuilder()
    listed: list[ListedShard] = []
    with uncollected(stays=False):  # each search for cycles went through all that torch has made
        for number, entry in enumerate(entries):
            found = _listed(entry.source, cache or ShardCache.at())
            for one in found:
                rows, size = _rows(one, stills=stills, full=full), one.entry.bytes if one.entry else None
                if pictures := builder.add(one.shard, rows, source=number, size=size, stills=stills):
                    log.warning("%s: left out %d pictures; data.stills=true trains on them", one.shard, pictures)
            listed += found
    _refuse_repeats(listed)
    table = builder.table()
    held_out_N = np.array([shard.held_out for shard in listed])[table.shard_N]
    for number, entry in enumerate(entries):
        here_N = table.source_N == number
        if not held_out_N[here_N].any() or held_out_N[here_N].all():
            held_out_N[here_N] = _split(table.where(here_N), entry.source)
    sums = tuple(shard.entry.sha256 for shard in listed if shard.entry)
    weights = tuple(entry.weight for entry in entries)
    return Manifest(table.where(~held_out_N), table.where(held_out_N), weights, sums)


def read_shards(listed: Sequence[ListedShard], *, stills: bool) -> ClipTable:
    """The clips of some shards, looked through now."""
    builder = TableBuilder()
    for one in listed:
        builder.add(one.shard, _rows(one, stills=stills, full=False), size=one.entry and one.entry.bytes, stills=stills)
    return builder.table()


def held_out_sources(sources: Iterable[str]) -> set[str]:
    """Every tenth source video, at least one, in an order that the names alone decide; none when there is only one."""
    ordered = sorted(set(sources), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return set(ordered[::HELD_OUT_EVERY]) if len(ordered) > 1 else set()


def _listed(source: str | list[str], cache: ShardCache) -> list[ListedShard]:
    names = [source] if isinstance(source, str) else source
    if not names:
        raise DataError("data.source is an empty list", WANTED)
    return [shard for name in names for shard in list_shards(name, cache)]


def _refuse_repeats(shards: Sequence[ListedShard]) -> None:
    for path, count in Counter(listed.shard.path.resolve() for listed in shards).items():
        if count > 1:
            raise DataError(f"data.source names {path} {count} times", "name each shard once")


def _rows(listed: ListedShard, *, stills: bool, full: bool) -> list[Row]:
    shard, entry = listed.shard, listed.entry
    if entry is None or listed.index is None:
        return index_rows(shard, stills=stills)
    if shard.remote is None:  # what is fetched is checked then
        _check_shard(listed, full=full)
    try:
        with listed.index.open() as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{listed.index} cannot be read: {error.strerror}", "copy the dataset again") from error
    if hashlib.sha256(text).hexdigest() != entry.index_sha256:
        raise DataError(f"{listed.index} is not what the manifest lists: another sha256", "copy the dataset again")
    rows = parse_index(text, shard)
    if len(rows) != entry.clips:
        message = f"{listed.index} lists {len(rows):,} clips, the manifest {entry.clips:,}"
        raise DataError(message, "prepare the dataset again")
    return rows


def _check_shard(listed: ListedShard, *, full: bool) -> None:
    shard, entry = listed.shard, listed.entry
    assert entry
    size = shard.path.stat().st_size
    if size != entry.bytes:
        how = "is cut short" if size < entry.bytes else "was changed"
        message = f"{shard} {how}: it has {size:,} bytes, the manifest says {entry.bytes:,}"
        raise DataError(message, "copy or prepare the dataset again")
    if full and is_first_of_node():
        with shard.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.sha256:
            message = f"{shard} was changed: its sha256 is {found[:16]}…, the manifest says {entry.sha256[:16]}…"
            raise DataError(message, "copy or prepare the dataset again")


def _split(clips: ClipTable, source: str | list[str]) -> np.ndarray:
    """bool [N]: which are held out."""
    if len(clips) < 2:
        message = f"data.source={source!r} holds {len(clips)} clip{'s' * (len(clips) != 1)}"
        raise DataError(message, "two are needed: one to train on, one to hold out")
    sources = list(clips.every_source())
    if chosen := held_out_sources(sources):
        return np.array([name in chosen for name in sources])
    last = max(1, len(clips) // HELD_OUT_EVERY)
    log.warning("all %d clips are from one video, '%s': its last %d are held out", len(clips), sources[0], last)
    return np.arange(len(clips)) >= len(clips) - last
