"""Room on a disk, and the right to write there: asked before anything is begun."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import SystemFault

if TYPE_CHECKING:
    from pathlib import Path


def refuse_full(folder: Path, needed: int, hint: str = "free space there, or name another folder") -> None:
    """Raise SystemFault where fewer bytes are free than are needed. The folder need not be there yet."""
    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError as error:
        raise SystemFault(f"{folder} cannot be read: {error.strerror}", "name another folder") from error
    if free < needed:
        raise SystemFault(f"need {_shown(needed)}, {_shown(free)} free at {folder}", hint)


def refuse_unwritable(folder: Path) -> None:
    """Raise SystemFault where a file cannot be made, flushed to the disk and removed; nothing stays behind.

    Where the folder is not there yet, in what it would be made in.
    """
    try:
        probe = _nearest(folder) / f".probe-{secrets.token_hex(4)}"
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(handle, b"probe")
            os.fsync(handle)
        finally:
            os.close(handle)
            probe.unlink()
    except OSError as error:
        raise SystemFault(
            f"{folder} cannot be written: {error.strerror}", "rights or space there, or another folder"
        ) from error


def _nearest(folder: Path) -> Path:
    """The folder, or that of its parents which is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
