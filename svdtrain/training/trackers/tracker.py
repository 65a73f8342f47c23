"""What a tracker is told of a run besides its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class LookedInput:
    """One input of a look at the adapter."""

    name: str
    base: Path | None
    """The base's video of it."""
    adapter: Path
    truth: Path | None = None
    """The held-out clip itself, where media of the data may leave."""
    caption: str = ""
    """Likewise."""


@dataclass(frozen=True)
class Look:
    """Sample videos of one step."""

    step: int
    ratio: float | None
    """Held-out loss as a ratio to the base's, where that step was validated."""
    inputs: Sequence[LookedInput]


@dataclass(frozen=True)
class SavedAdapter:
    """A copy of an adapter as it was saved, which goes when the tracker has it."""

    folder: Path
    step: int
    is_best: bool
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Tracker:
    """Each method but the first three may be left as it is: then the tracker has no place for it."""

    kind = ""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin, or go on with, the tracker's run; settings hold no secrets."""
        raise NotImplementedError

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        """Numbers of a step."""
        raise NotImplementedError

    def end(self, state: str, looks: Sequence[Look]) -> None:
        """The run is over: done, stopped or failed. looks: all of it."""
        raise NotImplementedError

    def dataset(self, about: Mapping[str, Any]) -> None:
        """Fingerprint and counts of what is trained on."""

    def look(self, look: Look) -> None:
        """New sample videos."""

    def saved(self, adapter: SavedAdapter) -> None:
        """A new adapter."""

    def alert(self, title: str, text: str) -> None:
        """What somebody should know at once."""

    def abandon(self) -> None:
        """It has failed: end what would be waited for at the end of the process."""
