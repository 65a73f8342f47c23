"""One fit of a sweep, in a process and a folder of its own: started, watched, stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.config.overrides import quoted
from svdtrain.foundation.errors import UsageError
from svdtrain.reporting.run_files import read_run

if TYPE_CHECKING:
    from svdtrain.launching.notice import Notice

POLL, LOOK = 0.1, 2.0
"""Seconds between looks at the process, and at what it has measured."""


@dataclass(frozen=True)
class Outcome:
    """What came of a fit."""

    state: str
    """done, pruned, failed or stopped."""
    ratio: float | None = None
    """Held-out loss as a ratio to the base's, of its last step."""
    error: str = ""
    hint: str = ""
    is_mistake: bool = False
    """In its words: another trial would make it, too."""


@dataclass(frozen=True)
class Fit:
    """`python -m svdtrain fit` with the sweep's words, and the values of a trial."""

    words: list[str]
    params: dict[str, Any]
    folder: Path

    def run(self, notice: Notice, goes_on: Callable[[int, float], bool]) -> Outcome:
        """To its end. goes_on: of each look's step and ratio, whether the fit is still worth its time."""
        if (ended := self._ratio()) is not None:  # before the sweep was cut off
            return Outcome("done", ended)
        values = [
            f"{key}={quoted(one) if isinstance(one, str) else json.dumps(one)}" for key, one in self.params.items()
        ]
        command = [sys.executable, "-m", "svdtrain", "fit", *self.words, *values, f"run_dir={quoted(str(self.folder))}"]
        pruned, seen, looked = False, set[int](), time.monotonic()
        with self._log.open("ab") as log:
            # A session of its own: signals of the terminal come to the sweep, which passes them on.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
            sent = 0
            while process.poll() is None:
                time.sleep(POLL)
                if notice.received and not sent:
                    process.send_signal(sent := notice.received)
                if time.monotonic() - looked < LOOK or pruned or sent:
                    continue
                looked = time.monotonic()
                for step, ratio in self._looks():
                    if step not in seen and step:
                        seen.add(step)
                        pruned = pruned or not goes_on(step, ratio)
                if pruned:
                    process.send_signal(signal.SIGTERM)
        return self._outcome(process.returncode, pruned=pruned)

    @property
    def _log(self) -> Path:
        """Beside the folder, which has to be the run's own."""
        return self.folder.with_suffix(".log")

    def _outcome(self, code: int, *, pruned: bool) -> Outcome:
        ratio = self._ratio()
        if code == 0 and ratio is not None:
            return Outcome("done", ratio)
        if pruned:
            looks = self._looks()
            return Outcome("pruned", looks[-1][1] if looks else None)
        said = self._log.read_text(errors="replace")
        lines = {kind: re.findall(rf"^{kind}: (.*)$", said, re.MULTILINE) for kind in ("error", "hint")}
        error, hint = (found[-1] if found else "" for found in lines.values())
        return Outcome(
            "failed", None, error or f"exit code {code}, see {self._log}", hint, code == UsageError.exit_code
        )

    def _ratio(self) -> float | None:
        """Of a fit that is done."""
        try:
            record = json.loads((self.folder / "run.json").read_text())
            ratios = {int(step): float(ratio) for step, ratio in record["validation_ratios"].items()}
            return ratios[max(ratios)] if record["state"] == "done" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _looks(self) -> list[tuple[int, float]]:
        try:
            return [(int(step), ratio) for step, ratio in read_run(self.folder).curves.get("val_ratio", [])]
        except UsageError:  # it has not begun
            return []
