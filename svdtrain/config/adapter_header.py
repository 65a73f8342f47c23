"""Which model an adapter file was made for, read from its safetensors header without torch."""

from __future__ import annotations

import json
from pathlib import Path

LONGEST_HEADER = 16 * 2**20


def adapter_metadata(place: str) -> dict[str, str]:
    """The metadata of an adapter file, or of a run's adapter; empty when there is none to read.

    The format: 8 bytes of little-endian length, then as much JSON, whose `__metadata__` maps text to text.
    """
    path = Path(place)
    for inside in ("adapter/adapter_model.safetensors", "adapter_model.safetensors"):
        if (path / inside).is_file():
            path = path / inside
            break
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= LONGEST_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
