"""Pulses of ranks, and who looks at them, without any process."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from svdtrain.launching.pulse import BEATS_VARIABLE, Beat, Pulse, Watch


def test_what_an_earlier_run_of_more_ranks_left_is_nobodys(tmp_path: Path) -> None:
    for number in (0, 1, 7):
        beat = Beat(number, 1, "here", trains=True, marks=0 if number == 7 else 5)
        (tmp_path / f"rank-{number}.json").write_text(json.dumps(asdict(beat)))
    now = [0.0]
    watch = Watch(tmp_path, 5.0, 2, clock=lambda: now[0])
    assert watch.still() == []
    now[0] = 6.0
    assert [beat.rank for beat in watch.still()] == [0, 1]


def test_a_pulse_that_cannot_be_written_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEATS_VARIABLE, str(tmp_path / "beats"))
    with Pulse(tmp_path / "beats", 0) as pulse:
        shutil.rmtree(tmp_path / "beats")
        pulse.stepped(3)
    assert pulse.step == 3
