"""A clip: one training item, as a place inside a shard and what its metadata says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """One video member of a shard. Nothing is read until `read`."""

    key: str
    """Unique within a dataset."""
    shard: Path
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

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"clip '{self.key}' in {self.shard}"

    def read(self) -> bytes:
        """The encoded video. Each call opens the shard afresh, so clips may be read from any process."""
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}", "is the shard still there?") from error
        if len(data) != self.size:
            raise DataError(
                f"{self.name} cannot be read: {self.size:,} bytes expected, {len(data):,} found",
                "the shard was changed after the run started; start again",
            )
        return data
