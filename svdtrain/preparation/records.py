"""What passes between the stages of preparation: sources, finished clips, and what was left out, and why."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from svdtrain.data.index import LARGEST_VIDEO, VIDEO_EXTENSIONS
from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path, PurePath

SOURCE_EXTENSIONS = (*VIDEO_EXTENSIONS, "ts", "mpg", "mpeg", "flv", "wmv", "gif")
STILL_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp")
REASONS = {
    "too_short": "too short",
    "duplicate": "duplicate(s)",
    "damaged": "damaged",
    "unreadable": "unreadable",
    "too_large": "too large",
    "low_fps": "with too few frames per second",
    "uneven": "with an uneven rate",
    "no_bucket": "fit no bucket",
    "black": "black",
    "frozen": "frozen",
    "blurred": "blurred",
    "clipped": "over- or underexposed",
    "letterbox": "letterboxed",
    "little_motion": "with too little motion",
    "much_motion": "with too much motion",
    "readers_disagree": "read differently by two readers",
    "hang": "hung the reader",
    "crash": "crashed the reader",
    "no_media": "no video or picture",
    "failed_entry": "sample(s) without a video or picture",
    "no_such_file": "caption(s) without a file",
    "bad_caption": "unusable caption(s)",
    "hidden": "hidden",
    "linked_folder": "linked folder(s)",
}
"""Why something is in no shard, and how the last line calls it."""
PASSING = {"hang", "crash", "unreadable"}
"""Reasons that may be gone at the next start."""
AT_ONCE = 1 << 22


def kind_of(name: str) -> Literal["video", "still"] | None:
    """What a file is by its name."""
    extension = name.rpartition(".")[2].lower()
    return "video" if extension in SOURCE_EXTENSIONS else "still" if extension in STILL_EXTENSIONS else None


def is_hidden(path: PurePath) -> bool:
    """Whether it, or a folder that it is in, has a name that starts with a dot."""
    return any(part.startswith(".") for part in path.parts)


def plain(text: str) -> str:
    """The text as UTF-8 can hold it: what is no character (of a name that is no UTF-8) in its \\udcNN form."""
    return text.encode("utf-8", "backslashreplace").decode()


class UnusableSource(DataError):
    """A source that gives no clip, with the reason of its row in rejected.jsonl."""

    def __init__(self, reason: str, message: str, **numbers: float) -> None:
        super().__init__(message, reason=reason)
        self.numbers = numbers


@dataclass(frozen=True)
class Source:
    """A file of the folder, or a member of one of its tars, that may become clips."""

    name: str
    """Its path from the folder (posix); TAR/MEMBER inside a tar."""
    kind: Literal["video", "still"]
    path: Path
    """The file, or the tar that holds it."""
    offset: int | None
    """Of the member's first byte; None: the file itself."""
    size: int
    changed: int
    """When the file was last written, in nanoseconds."""
    origin: str
    """The video it was cut from, where that is known: held-out clips are chosen by it."""
    caption: str | None = None

    def read(self) -> bytes:
        """All its bytes. UnusableSource when they cannot be read, or are too many."""
        if self.size > LARGEST_VIDEO:
            raise UnusableSource("too_large", f"it has {self.size:,} bytes, {LARGEST_VIDEO:,} are read: cut it")
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                data = file.read(self.size)
        except OSError as error:
            raise UnusableSource("unreadable", f"it cannot be read: {error.strerror}") from error
        if len(data) < self.size:
            raise UnusableSource("unreadable", f"it cannot be read: {self.size:,} bytes expected, {len(data):,} found")
        return data

    def hash(self) -> str:
        """sha256 of its bytes, read piece by piece; of its name where they cannot be read or are too many."""
        if self.size > LARGEST_VIDEO:
            return hashlib.sha256(repr(("too large", self.name, self.size, self.changed)).encode()).hexdigest()
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                for start in range(0, self.size, AT_ONCE):
                    digest.update(file.read(min(AT_ONCE, self.size - start)))
        except OSError:
            digest = hashlib.sha256(b"unreadable " + self.name.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Rejection:
    """A clip, or a whole source, that is in no shard."""

    reason: str
    """A key of REASONS."""
    start: float | None = None
    """Seconds in the source; None: all of it."""
    end: float | None = None
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was measured, and `detail` in words."""

    def row(self, source: str) -> dict[str, Any]:
        """Its line in rejected.jsonl."""
        return self.numbers | {"source": plain(source), "start": self.start, "end": self.end, "reason": self.reason}


@dataclass(frozen=True)
class FinishedClip:
    """An encoded, verified and measured clip; its file waits in the work folder."""

    file: str
    """NNN.mp4 or NNN.png."""
    bytes: int
    sha256: str
    width: int
    height: int
    frames: int
    fps: float | None
    """None: a still."""
    start: float
    """Seconds from the source's first frame."""
    verified: bool
    motion: float | None
    """% of the width per second; None: a still."""
    signature: tuple[int, ...]
    """For near duplicates."""
    bucket: tuple[int, int, int] | None
    """Height, width, frames."""
    scores: dict[str, Any]
    """Further measures, as they stand in the index."""

    @staticmethod
    def from_json(values: dict[str, Any]) -> FinishedClip:
        """From `asdict` after a way through JSON, which knows no tuples."""
        tuples: dict[str, Any] = {"signature": tuple(values["signature"])}
        tuples["bucket"] = None if values["bucket"] is None else tuple(values["bucket"])
        return FinishedClip(**values | tuples)


Outcome = tuple[list[FinishedClip], list[Rejection]]


@dataclass(frozen=True)
class SourceResult:
    """All that became of one source."""

    sha256: str
    clips: tuple[FinishedClip, ...]
    rejected: tuple[Rejection, ...]

    @property
    def passing(self) -> bool:
        """Whether it says more of the moment than of the source."""
        return any(why.reason in PASSING for why in self.rejected)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> SourceResult:
        """The inverse of to_json after a way through JSON."""
        clips = [FinishedClip.from_json(clip) for clip in values["clips"]]
        return SourceResult(values["sha256"], tuple(clips), tuple(Rejection(**row) for row in values["rejected"]))
