"""Tars with members of any name and content, and where those stand."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """A plain tar, whatever the names, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members(path: Path) -> list[tarfile.TarInfo]:
    """Name, offset (of the header), offset_data and size of each."""
    with tarfile.open(path) as tar:
        return tar.getmembers()
