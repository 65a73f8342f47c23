"""What is done already: one entry per source under OUT/work/, so that a job that was killed goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from svdtrain import __version__
from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import write_atomic
from svdtrain.preparation.records import FinishedClip, Rejection, Source, SourceResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from svdtrain.config.preparation import PrepareConfig

NOT_SETTINGS = {"source", "out", "workers", "executor", "ray_address", "deadline", "part"}
"""Keys that change nothing of the result."""
LATE_SETTINGS = {
    "captions",
    "model",
    "prompt",
    "trigger",
    "find",
    "replace",
    "duplicate_bits",
    "motion_bucket_id",
    "shard_megabytes",
}
"""Keys that only the assembly reads: another value of theirs needs no clip made again."""
ROOM = "make room and start again: it goes on from there"


def settings_of(config: PrepareConfig) -> dict[str, Any]:
    """The settings that the result depends on, as plain values."""
    return config.model_dump(mode="json", exclude=NOT_SETTINGS)


def write_whole(path: Path, content: str | bytes) -> None:
    """A file, whole or not at all. SystemFault when it cannot be written."""
    with writing(path):
        write_atomic(path, content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a missing permission, as one line."""
    try:
        yield
    except OSError as error:
        raise SystemFault(f"{path} cannot be written: {error.strerror or error}", ROOM) from error


def write_done(path: Path, done: FinishedClip | Rejection) -> None:
    """Remember what became of a clip, beside its file: a long video that is killed goes on after it."""
    kind = "clip" if isinstance(done, FinishedClip) else "rejection"
    write_whole(path.with_suffix(".json"), json.dumps({kind: asdict(done)}))


def read_done(path: Path) -> FinishedClip | Rejection | None:
    """The inverse; None: it was never finished."""
    if not path.with_suffix(".json").is_file():
        return None
    values = json.loads(path.with_suffix(".json").read_text())
    return FinishedClip.from_json(values["clip"]) if "clip" in values else Rejection(**values["rejection"])


@dataclass(frozen=True)
class Journal:
    """Entries of finished sources. An entry is its JSON file; the folder of clips beside it counts only with that."""

    folder: Path
    settings: str
    """Digest of all that a source's result depends on besides its bytes."""

    @staticmethod
    def open(folder: Path, config: PrepareConfig) -> Journal:
        """The journal in OUT/work for these settings."""
        early = {name: value for name, value in settings_of(config).items() if name not in LATE_SETTINGS}
        text = json.dumps([__version__, early], sort_keys=True)
        return Journal(folder, hashlib.sha256(text.encode()).hexdigest())

    def entry(self, kind: str, sha256: str) -> str:
        """The entry's name: equal bytes share one."""
        return hashlib.sha256(repr((self.settings, kind, sha256)).encode()).hexdigest()[:32]

    def clips(self, kind: str, sha256: str) -> Path:
        """The folder of a source's clips."""
        return self.folder / self.entry(kind, sha256)

    def read(self, kind: str, sha256: str) -> SourceResult | None:
        """A source's result; None: not done."""
        try:
            text = (self.folder / f"{self.entry(kind, sha256)}.json").read_text()
        except FileNotFoundError:
            return None
        return SourceResult.from_json(json.loads(text))

    def write(self, kind: str, result: SourceResult) -> None:
        """Keep a source's result; its clips must be there."""
        text = json.dumps(result.to_json(), sort_keys=True)
        write_whole(self.folder / f"{self.entry(kind, result.sha256)}.json", text)

    def note(self, source: Source, sha256: str) -> None:
        """Remember the hash of an unchanged file, so that the next start need not read it."""
        row = [source.name, source.size, source.changed, sha256]
        with writing(self.folder), (self.folder / "seen.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def seen(self) -> dict[tuple[str, int, int], str]:
        """{(name, size, changed): sha256} of all that was noted."""
        found: dict[tuple[str, int, int], str] = {}
        if (self.folder / "seen.jsonl").is_file():
            for line in (self.folder / "seen.jsonl").read_text().splitlines():
                try:
                    name, size, changed, sha256 = json.loads(line)
                except ValueError:  # the line that a kill cut short
                    continue
                found[name, size, changed] = sha256
        return found

    def clear(self) -> None:
        """Remove the clips and entries, which the shards hold now; what was noted stays."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in ("seen.jsonl", "lock"):
                path.unlink()


@contextmanager
def locked(out: Path, *, part: str | None, alone: bool = False) -> Iterator[bool]:
    """Hold OUT: alone, or (a part of a job, unless `alone`) together with other parts, for which it waits.

    False: other parts hold it. SystemFault when another job does.
    """
    with writing(out):
        (out / "work").mkdir(parents=True, exist_ok=True)
        file = (out / "work" / "lock").open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH if part and not alone else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if part:
                yield False
                return
            message = f"out={out}: another prepare is at work on it"
            raise SystemFault(message, "wait for it, or name part=i/n") from error
        except OSError as error:
            raise SystemFault(f"out={out}: cannot be locked: {error.strerror}", "choose another file system") from error
        yield True
