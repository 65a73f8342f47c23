"""What a process does on a signal, by itself."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from svdtrain.launching.notice import STOPS, Notice


def fails(notice: Notice, *, number: int = 0, trains: bool = False) -> None:
    """A library that takes the handler's SystemExit for a failure of its own, as OmegaConf does."""
    with notice.heard():
        notice.trains = trains
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), number)
        raise KeyError("_invalidate_flags_cache")


@pytest.mark.parametrize("number", STOPS)
def test_a_library_cannot_swallow_what_ends_a_run_that_loads(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended:
        fails(Notice(), number=number)
    assert ended.value.code == STOPS[number]


def test_what_fails_without_a_signal_or_in_training_fails_as_it_is() -> None:
    with pytest.raises(KeyError):
        fails(Notice())
    with pytest.raises(KeyError):
        fails(Notice(speaks=False), number=signal.SIGTERM, trains=True)
