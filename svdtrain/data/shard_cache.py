"""A bounded folder of fetched shards: each file is fetched once per machine, whole or not at all, and checked."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import FileLock

from svdtrain.data.transports import Interrupted, Missing
from svdtrain.foundation.errors import DataError, SystemFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svdtrain.data.transports import Transport

FOLDER = "~/.cache/svdtrain/shards"
ATTEMPTS = 6
PIECE = 1 << 20
LOCKS = 64
GIVEN_UP = 86400.0
"""Seconds after which a partial file is nobody's any more."""
ELSEWHERE = "free space there, or name another folder: data.shard_cache=FOLDER"

OURS = re.compile(r"(partial-)?[0-9a-f]{24}-")
"""How names begin of what is kept here."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere, as it was when the run began."""

    address: str
    """How messages call it."""
    url: str
    transport: Transport
    cache: ShardCache
    bytes: int | None = None
    """Where it is known."""
    sha256: str | None = None
    """Where a manifest knows it."""
    version: str = ""
    """What the place said of it."""

    @property
    def path(self) -> Path:
        """Where it lies once it is fetched: another content has another path."""
        digest = hashlib.sha256(repr((self.url, self.sha256 or self.version)).encode()).hexdigest()
        name = self.url.partition("?")[0].rpartition("/")[2][-80:]
        return self.cache.folder / f"{digest[:24]}-{name}"

    def open(self) -> IO[bytes]:
        """Open for reading, fetched first where it is not here. DataError or SystemFault when it cannot be."""
        return self.cache.open(self)


@dataclass(frozen=True)
class ShardCache:
    """The folder, shared by all processes of a machine. What was not opened for longest goes first."""

    folder: Path
    most_bytes: int

    @classmethod
    def at(cls, folder: str = FOLDER, gigabytes: float = 50.0) -> ShardCache:
        """A folder that may hold so many gigabytes."""
        return cls(Path(folder).expanduser(), int(gigabytes * 1e9))

    def check_room(self, files: Iterable[RemoteFile], at_once: int) -> None:
        """SystemFault when it cannot hold the `at_once` largest files: each clip would be fetched with its whole shard."""
        need = sum(sorted(file.bytes or 0 for file in files)[-at_once:])
        if need > self.most_bytes:
            what = f"{at_once} shards that are shuffled together have {need:,} bytes"
            message = f"{what}, {self.folder} may hold {self.most_bytes:,}"
            raise SystemFault(message, f"data.shard_cache_gb={need / 1e9 + 1:.0f}, or a smaller data.shuffle_shards")

    def open(self, file: RemoteFile) -> IO[bytes]:
        """An open file stays readable when another process removes it."""
        try:
            with suppress(FileNotFoundError):
                return self._opened(file.path)
            if file.bytes and file.bytes > self.most_bytes:
                message = f"{file.address} has {file.bytes:,} bytes, {self.folder} may hold {self.most_bytes:,}"
                raise SystemFault(message, "raise data.shard_cache_gb")
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{int(file.path.name[:8], 16) % LOCKS:02d}.lock"):
                with suppress(FileNotFoundError):
                    return self._opened(file.path)
                self._fetch(file)
                opened = self._opened(file.path)
            self._make_room(file.path)
        except OSError as error:
            message = f"{file.address} cannot be kept in {self.folder}: {error.strerror or error}"
            raise SystemFault(message, ELSEWHERE) from error
        return opened

    def _opened(self, path: Path) -> IO[bytes]:
        opened = path.open("rb")
        with suppress(FileNotFoundError):
            os.utime(path)  # the age by which it will be removed
        return opened

    def _fetch(self, file: RemoteFile) -> None:
        """Under the file's name only when whole; what a broken transfer left is gone on with."""
        partial = file.path.with_name(f"partial-{file.path.name}")
        why = ""
        for attempt in range(ATTEMPTS):
            if why:
                log.warning("%s: %s; trying again", file.address, why)
                time.sleep(0.1 * 4**attempt)
            try:
                self._go_on(file, partial)
            except Interrupted as error:
                why = f"the transfer broke off: {error}"
                continue
            except Missing as error:
                raise DataError(f"{file.address} is not there ({error})", "check data.source") from error
            except DataError as error:
                raise DataError(f"{file.address}: {error.message}", error.hint) from error
            size = partial.stat().st_size
            if file.bytes is not None and size < file.bytes:
                why = f"the transfer ended after {size:,} of {file.bytes:,} bytes"
                continue
            why = _fault(file, partial)
            if not why:
                partial.replace(file.path)
                return
            partial.unlink()
        raise DataError(
            f"{file.address} cannot be fetched: {why}", "try again later, or copy the dataset to this machine"
        )

    def _go_on(self, file: RemoteFile, partial: Path) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if have and have == file.bytes:
            return
        with file.transport.read(file.url, have, file.version) as (first, stream), partial.open("ab") as out:
            out.truncate(first)
            while piece := stream.read(PIECE):
                try:
                    out.write(piece)
                except OSError as error:  # not the transfer's
                    message = f"{file.address} cannot be kept in {self.folder}: {error.strerror}"
                    raise SystemFault(message, ELSEWHERE) from error

    def _make_room(self, keep: Path) -> None:
        with FileLock(self.folder / "room.lock"):
            found: dict[Path, os.stat_result] = {}
            for path in self.folder.iterdir():
                if OURS.match(path.name) and not path.name.endswith(".lock"):  # what else lies there is somebody's own
                    with suppress(FileNotFoundError):  # another process has just renamed it
                        found[path] = path.stat()
            total = sum(stat.st_size for stat in found.values())
            for path, stat in sorted(found.items(), key=lambda item: item[1].st_mtime_ns):
                if total <= self.most_bytes:
                    return
                held = path.name.startswith("partial-") and time.time() - stat.st_mtime < GIVEN_UP
                if path != keep and not held:
                    path.unlink(missing_ok=True)
                    total -= stat.st_size


def _fault(file: RemoteFile, path: Path) -> str:
    """What is wrong with a fetched file; "" when nothing is."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"it has {size:,} bytes, {file.bytes:,} are expected"
    if file.sha256 is not None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256:
            return f"its sha256 is {found[:16]}…, {file.sha256[:16]}… is expected"
    return ""
