"""A tracker on a thread of its own: training hands over and goes on, however slow or dead the tracker is."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger

from svdtrain.training.trackers.tracker import SavedAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from svdtrain.training.trackers.tracker import Look, Tracker

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Of what the tracker has not taken yet: more is dropped."""


class BackgroundLogger(Logger):
    """One tracker, told everything in order. What fails is told once, and left alone from then on."""

    def __init__(self, tracker: Tracker, patience: float, most: int = MOST_WAITING) -> None:
        """patience: seconds that the end of a run waits for the tracker."""
        super().__init__()
        self.tracker, self.patience = tracker, patience
        self.broken: Exception | None = None
        self.dropped = 0
        self._waiting: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(most)
        self._thread = threading.Thread(target=self._work, name=f"logger={tracker.kind}", daemon=True)
        self._thread.start()

    def tell(self, method: str, *given: object) -> bool:
        """Call a method of the tracker, later. False: it is dropped."""
        try:
            if self.broken or not self._thread.is_alive():
                return False
            self._waiting.put_nowait((method, given))
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("logger=%s is too slow: what it has no room for is dropped", self.tracker.kind)
            return False
        return True

    def close(self, state: str, looks: Sequence[Look]) -> None:
        """The tracker's last word; it has `patience` seconds for all that it has not taken yet."""
        until = time.monotonic() + self.patience
        with suppress(queue.Full):
            if self._thread.is_alive():
                self._waiting.put(("end", (state, looks)), timeout=self.patience)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and not self.broken:
            self.broken = TimeoutError()
            log.warning("logger=%s is left alone: %g s after the end it has not taken all", self.name, self.patience)

    def _work(self) -> None:
        method = ""
        while method != "end":
            method, given = self._waiting.get()
            try:
                if not self.broken:
                    getattr(self.tracker, method)(*given)
            except Exception as error:  # of any kind: none of it is worth a run
                if self.broken:  # told already, by close
                    return
                self.broken = error
                said = str(error).partition("\n")[0] or type(error).__name__
                log.warning("logger=%s is left alone from here on: %s", self.tracker.kind, said)
                with suppress(Exception):
                    self.tracker.abandon()
            for one in given:
                if isinstance(one, SavedAdapter):
                    shutil.rmtree(one.folder, ignore_errors=True)
            if self.broken:
                return

    @property
    def name(self) -> str:
        """The tracker's."""
        return self.tracker.kind

    @property
    def version(self) -> str:
        """None of its own."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Later."""
        self.tell("scalars", dict(metrics), step or 0)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """The tracker was started with the settings."""
