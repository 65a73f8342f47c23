"""How far preparation is: a bar with the time left, by bytes; now and then a plain line when the output is no terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

PLAIN_EVERY = 30.0
"""Seconds between plain lines."""


class SourceProgress:
    """Counts sources; used in a `with`."""

    def __init__(self, console: Console, sources: int, total_bytes: int) -> None:
        self.console, self.sources, self.total_bytes = console, sources, max(1, total_bytes)
        self.done = self.clips = self.done_bytes = self.worked_bytes = 0
        self.started = self.last_line = time.monotonic()
        columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        self.bar = Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console)
        self.task = self.bar.add_task("prepare", total=sources, said="", left="")

    def __enter__(self) -> SourceProgress:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:  # elsewhere it would print an empty line
            self.bar.stop()

    def advance(self, size: int, clips: int, *, worked: bool = True) -> None:
        """One source of `size` bytes is done, with so many clips; worked False: it was done before."""
        self.done, self.clips, self.done_bytes = self.done + 1, self.clips + clips, self.done_bytes + size
        self.worked_bytes += size if worked else 0
        left = self._left()
        self.bar.update(self.task, completed=self.done, said=f"{self.clips:,} clips", left=left)
        now = time.monotonic()
        if not self.console.is_terminal and worked and now - self.last_line > PLAIN_EVERY:
            self.last_line = now
            line = f"{self.done:,} of {self.sources:,} sources, {self.clips:,} clips, {left}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        """Time left at the speed in bytes so far."""
        if not self.worked_bytes:
            return ""
        seconds = (time.monotonic() - self.started) * (self.total_bytes - self.done_bytes) / self.worked_bytes
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} left"
