"""A clip: one training item, as a place inside a shard and what its metadata says."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from svdtrain.foundation.errors import DataError, shown

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.data.shard_cache import RemoteFile

LARGEST_TEXT = 1 << 16
"""Bytes of a caption: text models read a few hundred words, and a tokenizer takes seconds for a million letters."""


@dataclass(frozen=True)
class Shard:
    """A tar on this machine, or one that is fetched when it is first opened."""

    path: Path
    """Where it lies, or will lie once it is fetched."""
    remote: RemoteFile | None = None

    def __str__(self) -> str:
        return self.remote.address if self.remote else str(self.path)

    @property
    def label(self) -> str:
        """Its dataset folder's name and its own, without the ending: what tells it from other shards."""
        folders, _, name = str(self).replace("\\", "/").removesuffix(".tar").rpartition("/")
        return f"{folders.removesuffix('/shards').rpartition('/')[2]}/{name}"

    def changed(self) -> str:
        """A mark that is another once its content is another: what a server says of it, or when the file was changed."""
        if self.remote:
            return self.remote.sha256 or self.remote.version
        try:
            return str(self.path.stat().st_mtime_ns)
        except OSError as error:
            raise DataError(f"{self} cannot be read: {error.strerror}", "is it still there?") from error

    def open(self) -> IO[bytes]:
        """Open for reading. OSError for a local file that is not there, DataError for one that cannot be fetched."""
        return self.remote.open() if self.remote else self.path.open("rb")


class Place(NamedTuple):
    """Where a member's bytes stand in a shard."""

    offset: int
    size: int


@dataclass(frozen=True)
class Clip:
    """One video (or still) member of a shard. Nothing is read until `read`."""

    key: str
    """Unique within a dataset."""
    shard: Shard
    offset: int
    """Of the video's first byte in the shard."""
    size: int
    """In bytes."""
    source: str
    """The video it was cut from: clips of one source never stand on both sides of the held-out split."""
    fps: float | None = None
    """Frames per second, where the metadata knows it."""
    frames: int | None = None
    """Number of frames, where the metadata knows it."""
    motion_bucket_id: float | None = None
    """In [0, 255], where the metadata knows it."""
    picture: tuple[int, int] | None = None
    """(height, width) of its frames, where an index knows it."""
    still: bool = False
    """A picture: one frame."""
    verified: bool = False
    """Both readers agreed on every frame when it was packed, and the index that says so is vouched for."""
    bucket: tuple[int, int, int] | None = None
    """(height, width, frames) that preparation assigned."""
    sha256: str | None = None
    """Of the video's bytes, where an index knows it."""
    caption: str | None = None
    """Where the index or the .json has it."""
    text: Place | None = None
    """The .txt member, which holds the caption where `caption` is None."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"clip '{shown(self.key)}' in {self.shard}"

    @property
    def known(self) -> bool:
        """Whether its index says, and vouches for, all that a probe would find."""
        return bool(self.verified and self.frames and self.fps and self.picture)

    def read(self) -> bytes:
        """The encoded video, as its index knows it. Each call opens the shard afresh: from any process, at any time."""
        data = self._read(Place(self.offset, self.size))
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            message = f"{self.name} is damaged: its bytes are not those that its index lists"
            raise DataError(message, "copy or prepare the dataset again", "damaged")
        return data

    def read_caption(self) -> str:
        """The caption, "" when there is none. DataError for one that is no UTF-8 or longer than 64 KB."""
        text = self.text if self.caption is None else None
        size = text.size if text else len((self.caption or "").encode())
        if size > LARGEST_TEXT:
            raise DataError(f"the caption of {self.name} has {size:,} bytes", f"at most {LARGEST_TEXT:,} are read")
        if text is None:
            return self.caption or ""
        try:
            return self._read(text).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            message = f"the caption of {self.name} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
            raise DataError(message, "write the .txt again as UTF-8") from error

    def told(self, trigger: str) -> str:
        """The caption with the trigger word before it. DataError where there is neither."""
        if told := begun_with(trigger, self.read_caption()):
            return told
        message = f"{self.name} has no caption, and the model is told what to show"
        raise DataError(message, "a.txt beside a.mp4, and prepare again; or data.trigger=WORD for all", "no_caption")

    def _read(self, place: Place) -> bytes:
        try:
            with self.shard.open() as file:
                found = max(0, file.seek(0, os.SEEK_END) - place.offset)
                file.seek(place.offset)
                data = file.read(place.size) if found >= place.size else b""  # room is made for all that is asked for
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}", "is the shard still there?") from error
        if len(data) != place.size:
            raise DataError(
                f"{self.name} cannot be read: {place.size:,} bytes expected, {found:,} found",
                "the shard was changed after the run started; start again",
            )
        return data


def begun_with(trigger: str, caption: str) -> str:
    """The caption with the trigger word before it, once; the word alone where there is no caption."""
    begun = re.match(re.escape(trigger) + r"(?!\w)", caption)
    return caption if not trigger or begun else f"{trigger} {caption}".strip()
