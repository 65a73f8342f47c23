"""What W&B has kept of a run offline, read back: LevelDB's log format, with a record of its protocol in each entry."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as proto

HEADER, BLOCK = 7, 32768
"""Bytes of the file's own header, and of the blocks that entries are cut at."""


@dataclass
class Kept:
    """A file's records by kind."""

    identity: str = ""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    artifacts: list[Any] = field(default_factory=list[Any])
    alerts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    exit_code: int | None = None

    def values(self, name: str) -> list[Any]:
        """Of a metric, in order."""
        return [row[name] for row in self.history if name in row]


def entries(data: bytes) -> list[bytes]:
    found, offset = [b""], HEADER
    while offset + HEADER <= len(data):
        if BLOCK - offset % BLOCK < HEADER:
            offset += BLOCK - offset % BLOCK
            continue
        size, kind = int.from_bytes(data[offset + 4 : offset + 6], "little"), data[offset + 6]
        found[-1] += data[offset + HEADER : offset + HEADER + size]
        if kind in (1, 4):  # whole, or the last part
            found.append(b"")
        offset += HEADER + size
    return found[:-1]


def read(file: Path) -> Kept:
    kept = Kept()
    for entry in entries(file.read_bytes()):
        record: Any = getattr(proto, "Record")()  # noqa: B009 (made when it is imported: no type checker knows it)
        record.ParseFromString(entry)
        match record.WhichOneof("record_type"):
            case "run":
                kept.identity = record.run.run_id
                kept.config |= _told(record.run.config.update)
            case "config":
                kept.config |= _told(record.config.update)
            case "history":
                kept.history.append(_told(record.history.item))
            case "artifact":
                kept.artifacts.append(record.artifact)
            case "alert":
                kept.alerts.append((record.alert.title, record.alert.text))
            case "exit":
                kept.exit_code = record.exit.exit_code
            case _:
                pass
    return kept


def _told(items: Any) -> dict[str, Any]:  # noqa: ANN401
    """Names and values; where a name has parts, tables within tables."""
    found: dict[str, Any] = {}
    for item in items:
        *outer, name = item.nested_key or [item.key]
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        place[name] = json.loads(item.value_json)
    return found
