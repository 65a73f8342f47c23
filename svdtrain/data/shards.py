"""WebDataset shards: written by webdataset's own TarWriter, the same bytes for the same clips."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import webdataset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write_shard(path: Path, clips: Iterable[tuple[str, bytes, dict[str, Any]]]) -> int:
    """Write (key, mp4 bytes, metadata) clips to one tar; returns how many. The file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    count = 0
    with webdataset.TarWriter(str(partial), user="svdtrain", group="svdtrain", mode=0o644, mtime=0) as writer:
        for key, mp4, metadata in clips:
            writer.write({"__key__": key, "mp4": mp4, "json": json.dumps(metadata, sort_keys=True).encode()})
            count += 1
    partial.replace(path)
    return count
