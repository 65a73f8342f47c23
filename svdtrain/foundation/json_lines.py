"""Files of one JSON object a line, which grow while a run lasts and may have been cut short by a kill."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import SystemFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class JsonLines:
    """One such file; several processes may append to it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._begun = False

    def append(self, row: Mapping[str, Any]) -> None:
        """One line, in one write; numbers that are not finite become null. Raises SystemFault."""
        told = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
        line = json.dumps(told, allow_nan=False).encode() + b"\n"
        try:
            with self.file.open("ab+") as file:
                if not self._begun and file.tell():
                    file.seek(-1, 2)
                    line = b"\n" * (file.read() != b"\n") + line
                file.write(line)
            self._begun = True
        except OSError as error:
            raise SystemFault(
                f"{self.file} cannot be written: {error.strerror}", "free space or rights there"
            ) from error

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """Each line's object; None for a line that is none. Nothing where there is no file."""
        with suppress(FileNotFoundError), self.file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
