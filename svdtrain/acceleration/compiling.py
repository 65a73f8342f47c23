"""What all that is compiled here shares: the folder of what is made, the clock, and the line where it fails."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Self

from torch._dynamo import callback as dynamo_callback

log = logging.getLogger(__name__)

CACHE = "TORCHINDUCTOR_CACHE_DIR"


class CompileClock:
    """Counts the seconds in which torch compiles, from start() to close()."""

    def __init__(self) -> None:
        self.seconds = self._began = 0.0
        self._runs = False

    def start(self) -> None:
        """From now on."""
        if not self._runs:
            dynamo_callback.callback_handler.register_start_callback(self._begin)
            dynamo_callback.callback_handler.register_end_callback(self._end)
        self._runs = True

    def close(self) -> None:
        """No longer; the seconds stay."""
        if self._runs:
            dynamo_callback.callback_handler.remove_start_callback(self._begin)
            dynamo_callback.callback_handler.remove_end_callback(self._end)
        self._runs = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, *_: Any) -> None:  # noqa: ANN401
        self._began = time.perf_counter()

    def _end(self, *_: Any) -> None:  # noqa: ANN401
        self.seconds += time.perf_counter() - self._began


def keep_on_disk() -> None:
    """What is compiled from now on: where the environment says, else in the user's cache."""
    os.environ.setdefault(CACHE, str(Path.home() / ".cache" / "svdtrain" / "compiled"))


def say_failed(setting: str, error: Exception) -> str:
    """One line to the user; returns the reason."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    log.warning("%s: compiling failed (%s); going on without", setting, reason[:200])
    return reason
