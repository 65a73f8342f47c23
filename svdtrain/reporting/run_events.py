"""RUN/events.jsonl: what happened in a run besides steps, as it happened."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.json_lines import JsonLines
from svdtrain.foundation.secrets import redacted

EVENTS = "events.jsonl"
Event = Literal["start", "resume", "look", "sample", "save", "best", "asked", "spike", "skip", "stop", "done", "fail"]


class RunEvents:
    """Written by one rank."""

    def __init__(self, run_dir: Path, *, writes: bool = True) -> None:
        self._lines, self._writes = JsonLines(run_dir / EVENTS), writes

    def add(self, event: Event, step: int, **about: Any) -> None:  # noqa: ANN401
        """A line of it; where the disk is full none, which is not worth a run."""
        if self._writes:
            with suppress(SystemFault):
                told = {"time": round(time.time(), 3), "event": event, "step": step, **about}
                self._lines.append(redacted(told))

    def latest(self, event: Event) -> int | None:
        """The step of the latest such event in the run folder; None where there is none."""
        steps = [row["step"] for row in self._lines.rows() if row and row.get("event") == event and "step" in row]
        return steps[-1] if steps else None


SILENT = RunEvents(Path(), writes=False)
"""Of a training without a run folder."""
