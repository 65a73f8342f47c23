"""What a process of a run does on SIGTERM, SIGINT and SIGUSR1.

The exit code is 143, 130, or 75 after SIGUSR1 (a cluster's notice: the run wants to be started again). A second signal ends
at once; while things are still being loaded, the first one does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import LostRank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOPS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: LostRank.exit_code}
"""Signals that stop a run after its step, and the exit code each leaves."""
ONE_NOTICE = 1.0
"""Seconds within which signals are one: of a terminal, a launcher and a service manager each may send it."""


@contextmanager
def held_back() -> Iterator[None]:
    """The signals wait until the block ends; in processes that are started in it, until they hear a Notice."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Notice:
    """What the signal handler does: it notes the number, and leaves only where there is nothing to save."""

    def __init__(self, *, speaks: bool = True) -> None:
        self.received, self.speaks = 0, speaks
        self.trains = False
        """Somebody looks at `received` after every step."""
        self._when = 0.0

    @property
    def exit_code(self) -> int:
        """0 as long as nobody wants the run to stop."""
        return STOPS[signal.Signals(self.received)] if self.received else 0

    @contextmanager
    def heard(self) -> Iterator[Notice]:
        """From here to the end of the block; the handlers that were there come back."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self.on_signal) for number in STOPS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        try:
            yield self
        except Exception:
            if not self.received or self.trains:
                raise
            raise SystemExit(self.exit_code) from None  # some library took the handler's SystemExit for its own failure
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The handler."""
        now = time.monotonic()
        if self.received and now - self._when > ONE_NOTICE:
            os._exit(self.exit_code)
        if not self.received:
            self.received, self._when = number, now
            if not self.trains:
                raise SystemExit(self.exit_code)
            if self.speaks:
                name = signal.Signals(number).name
                os.write(2, f"warning: {name}: stops after the next step and saves; once more ends at once\n".encode())
