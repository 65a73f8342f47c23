"""What has been found so far, a file each: written whole, good for the settings it was made with and for no others."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT = 1


def key_of(*decides: object) -> str:
    """A mark of everything that decides a result."""
    return hashlib.sha256(json.dumps([FORMAT, *decides], sort_keys=True, default=str).encode()).hexdigest()


class Results:
    """A folder of results. Processes share it: each writes what it has found, none waits for another."""

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        """others: folders whose results are taken over where they are those that are sought."""
        self.folder, self.others = folder, others

    def find(self, name: str, key: str, beside: str = "") -> dict[str, Any] | None:
        """The result, or None: there is none, it is damaged, or it was made with other settings.

        beside: ending of a file that must stand beside it.
        """
        if told := _read(self.folder / name, key, beside):
            return told
        for other in self.others:
            told = _read(other / name, key, beside)
            if told and "failed" not in told:
                self._take(other, name, [f".{beside}"] * bool(beside) + [".json"])
                return told
        return None

    def _take(self, other: Path, name: str, endings: Sequence[str]) -> None:
        try:
            for ending in endings:
                write_atomic(self.folder / f"{name}{ending}", (other / f"{name}{ending}").read_bytes())
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def keep(self, name: str, key: str, result: dict[str, Any]) -> None:
        """Written whole or not at all. Raises SystemFault."""
        try:
            write_atomic(self.folder / f"{name}.json", json.dumps({"key": key, **result}))
        except OSError as error:
            raise unwritable(self.folder, error) from error


def _read(place: Path, key: str, beside: str) -> dict[str, Any] | None:
    try:
        told = json.loads(place.with_name(f"{place.name}.json").read_text())
        there = not beside or place.with_name(f"{place.name}.{beside}").is_file()
        return told if told["key"] == key and there else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def unwritable(folder: Path, error: OSError) -> SystemFault:
    """What is said where results cannot be written."""
    hint = "make room or give rights there, or out=FOLDER; the same command then does what is missing"
    return SystemFault(f"out={folder}: cannot be written: {error.strerror or error}", hint)
