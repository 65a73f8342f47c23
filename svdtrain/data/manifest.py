"""The list of clips: which shards a source names, what is held out, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.data.shards import VIDEO_EXTENSIONS, index_shard
from svdtrain.foundation.errors import DataError, nearest
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svdtrain.data.clip import Clip

HELD_OUT_EVERY = 10
WANTED = "data.source is a dataset folder, a .tar shard, a list of them, or demo:NAME"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardLists:
    """Shards by split. No held-out shard: the split is made from the clips."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]


@dataclass(frozen=True)
class Summary:
    """A dataset in a few numbers."""

    train_clips: int
    held_out_clips: int
    train_sources: int
    held_out_sources: int
    shards: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """The clips of a dataset."""

    train: tuple[Clip, ...]
    held_out: tuple[Clip, ...]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every clip's split, key, place and size: where the shards lie does not matter."""
        digest = hashlib.sha256()
        for split, clips in (("train", self.train), ("held_out", self.held_out)):
            for clip in clips:
                digest.update(repr((split, clip.key, clip.offset, clip.size)).encode())
        return digest.hexdigest()

    def describe(self) -> Summary:
        """Counts of clips, sources and shards, and the bytes of video."""
        clips = self.train + self.held_out
        return Summary(
            train_clips=len(self.train),
            held_out_clips=len(self.held_out),
            train_sources=len({clip.source for clip in self.train}),
            held_out_sources=len({clip.source for clip in self.held_out}),
            shards=len({clip.shard for clip in clips}),
            bytes=sum(clip.size for clip in clips),
            fingerprint=self.fingerprint,
        )


def read_manifest(source: str | list[str]) -> Manifest:
    """Index every shard of a source. Held out are the shards named held_out-*, or else every tenth source video."""
    shards = find_shards(source)
    train = [clip for path in shards.train for clip in index_shard(path)]
    held_out = [clip for path in shards.held_out for clip in index_shard(path)]
    repeated = {key for key, count in Counter(clip.key for clip in train + held_out).items() if count > 1}
    train, held_out = _unique(train, repeated), _unique(held_out, repeated)
    if not held_out:
        train, held_out = _split(train, source)
    return Manifest(tuple(train), tuple(held_out))


def find_shards(source: str | list[str]) -> ShardLists:
    """The shards that a source names, by split; DataError says what else was found there."""
    found: list[Path] = []
    for one in [source] if isinstance(source, str) else source:
        found += _tars(one)
    if not found:
        raise DataError("data.source is an empty list", WANTED)
    for path, count in Counter(path.resolve() for path in found).items():
        if count > 1:
            raise DataError(f"data.source names {path} {count} times", "name each shard once")
    held_out = tuple(path for path in found if path.name.startswith("held_out-"))
    train = tuple(path for path in found if path not in held_out)
    return ShardLists(train, held_out) if train else ShardLists(held_out, ())


def held_out_sources(sources: Iterable[str]) -> set[str]:
    """Every tenth source video, at least one, in an order that the names alone decide; none when there is only one."""
    ordered = sorted(set(sources), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return set(ordered[::HELD_OUT_EVERY]) if len(ordered) > 1 else set()


def _tars(source: str) -> list[Path]:
    if source.startswith("demo:"):
        return _tars(str(_demo(source.removeprefix("demo:"))))
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        address = re.match(r"[A-Za-z][A-Za-z0-9+-]+:", source)
        why = f"{address[0]} addresses are not read, only local files" if address else "there is no such file or folder"
        raise DataError(f"data.source={source!r}: {why}", WANTED)
    for folder in (path, path / "shards"):
        tars = sorted(folder.glob("*.tar"))
        if named := [tar for tar in tars if tar.name.startswith(("train-", "held_out-"))]:
            return named
        if tars:
            return tars
    if any(file.suffix.lower().removeprefix(".") in VIDEO_EXTENSIONS for file in path.rglob("*")):
        hint = f"pack them first: python scripts/pack_clips.py {source} OUT, then data.source=OUT"
        raise DataError(f"data.source={source!r} holds plain videos, no .tar shards", hint)
    raise DataError(f"data.source={source!r} holds no .tar shards", WANTED)


def _demo(name: str) -> Path:
    folder = packaged("datasets")
    known = [path.name for path in folder.iterdir() if path.is_dir()]
    if name not in known:
        raise DataError(f"data.source=demo:{name}: there is no such demo set", nearest(name, known))
    return folder / name


def _unique(clips: list[Clip], repeated: set[str]) -> list[Clip]:
    """Keys that several shards use are told apart by folder and shard."""
    return [replace(c, key=f"{c.shard.parent.name}/{c.shard.stem}/{c.key}") if c.key in repeated else c for c in clips]


def _split(clips: list[Clip], source: str | list[str]) -> tuple[list[Clip], list[Clip]]:
    if len(clips) < 2:
        raise DataError(f"data.source={source!r} holds 1 clip", "two are needed: one to train on, one to hold out")
    if chosen := held_out_sources(clip.source for clip in clips):
        return [c for c in clips if c.source not in chosen], [c for c in clips if c.source in chosen]
    last = max(1, len(clips) // HELD_OUT_EVERY)
    log.warning("all %d clips are from one video, '%s': its last %d are held out", len(clips), clips[0].source, last)
    return clips[:-last], clips[-last:]
