"""`python -m svdtrain sample-now|save-now|stop RUN`: what a run that trains is asked to do after its next step."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import UsageError
from svdtrain.launching.control import Control
from svdtrain.reporting.run_lock import is_held

if TYPE_CHECKING:
    from svdtrain.config.control import ControlConfig

LOOKS_EVERY = 0.1
"""Seconds."""


def run(config: ControlConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Ask, and wait until the run has taken it up. Raises UsageError where nothing trains there."""
    folder = Path(config.run).expanduser()
    if not (folder / "run.json").is_file():
        raise UsageError(f"run={folder}: it is no run folder", "give a folder under runs/")
    if not is_held(folder):
        raise UsageError(
            f"run={folder}: nothing trains there",
            f"go on with it: its own command and {shlex.quote(f'resume={folder}')}",
        )
    control = Control(folder)
    control.ask(config.request)
    deadline = time.monotonic() + config.wait
    while control.waits(config.request) and time.monotonic() < deadline:
        time.sleep(LOOKS_EVERY)
    if not control.waits(config.request):
        print(f"{folder}: {config.request}: taken up")  # noqa: T201
    else:
        print(f"{folder}: {config.request}: asked, and not taken up in {config.wait:g} s; it stays asked")  # noqa: T201
