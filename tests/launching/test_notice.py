"""What a process does on a signal, by itself."""

from __future__ import annotations

import os
import signal

import pytest

from svdtrain.launching.notice import STOPS, Notice


@pytest.mark.parametrize("number", STOPS)
def test_a_library_cannot_swallow_what_ends_a_run_that_loads(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended, Notice().heard():
        try:
            os.kill(os.getpid(), number)
        except SystemExit:
            raise KeyError("_invalidate_flags_cache") from None  # as OmegaConf does
    assert ended.value.code == STOPS[number]


def test_what_fails_without_a_signal_fails_as_it_is() -> None:
    with pytest.raises(KeyError, match="frames"), Notice().heard():
        raise KeyError("frames")


def test_what_fails_after_a_signal_to_a_run_that_trains_is_told() -> None:
    with pytest.raises(KeyError, match="frames"), Notice(speaks=False).heard() as notice:
        notice.trains = True
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError("frames")
