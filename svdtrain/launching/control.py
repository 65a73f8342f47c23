"""RUN/control: a file named for what is asked of a run, from outside, while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import make_folder

if TYPE_CHECKING:
    from pathlib import Path

Request = Literal["sample", "save", "stop"]
FOLDER = "control"


class Control:
    """Of one run folder; the run's first rank looks after each optimizer step."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / FOLDER

    def ask(self, request: Request) -> None:
        """Raises SystemFault where the folder cannot be written."""
        try:
            make_folder(self.folder)
            (self.folder / request).touch()
        except OSError as error:
            raise SystemFault(f"{self.folder}: cannot be written: {error.strerror}", "ask as the run's user") from error

    def waits(self, request: Request) -> bool:
        """Whether the run has not taken it up yet."""
        return (self.folder / request).exists()

    def taken(self) -> set[Request]:
        """What was asked for since the last look; its files are gone."""
        found: set[Request] = set()
        for request in get_args(Request):
            try:
                (self.folder / request).unlink()
            except OSError:
                continue
            found.add(request)
        return found
