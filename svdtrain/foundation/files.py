"""Where the package's own files are, and writes that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import SystemFault

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[1]


def packaged(name: str) -> Path:
    """The folder `configs`, `datasets` or `assets`: inside an installed package, or beside it in a source checkout.

    Raises SystemFault when the installation lacks it.
    """
    places = [PACKAGE / name]
    if (PACKAGE.parent / "pyproject.toml").is_file():
        places.append(PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in places)
    raise SystemFault(f"{name}: no such folder in this installation (looked at {looked})", "install svdtrain again")


def sha256_of(file: Path) -> str:
    """Of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for any writer; it takes the place of `path`, flushed to disk, only on success."""
    make_folder(path.parent)
    partial = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """A temporary folder for any writer; each file in it takes the place of its namesake, flushed to disk, only on success."""
    make_folder(folder)
    partial = folder.with_name(f".partial-{secrets.token_hex(4)}-{folder.name}")
    partial.mkdir()
    try:
        yield partial
        for file in sorted(partial.iterdir()):
            sync(file)
            file.replace(folder / file.name)
        sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(path: Path) -> None:
    """With its parents; those that are new outlast a loss of power."""
    for place in reversed([one for one in (path, *path.parents) if not one.exists()]):
        place.mkdir(exist_ok=True)
        sync(place.parent)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or none: a reader sees the old content or the new one."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
