"""User mistakes: one line that says what, where and why, one line that mends it, and an exit code by kind."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class SvdtrainError(Exception):
    """A mistake the user can mend: shown as "error: message / hint: hint" without a traceback (unless --debug)."""

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SvdtrainError):
    """A wrong command, key, value or recipe."""

    exit_code = 2


class DataError(SvdtrainError):
    """Clips, shards or images that cannot be used."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "", reason: str = "unusable") -> None:
        super().__init__(message, hint)
        self.reason = reason
        """In a word or two, for counts: too short, damaged, hang."""


class ModelError(SvdtrainError):
    """A base model or an adapter that is missing, damaged or of another kind."""

    exit_code = 4


class SystemFault(SvdtrainError):
    """Disk, memory, permissions, or a run folder that is taken."""

    exit_code = 5


class NumericError(SvdtrainError):
    """A loss or gradient that is not finite."""

    exit_code = 6


class LostRank(SvdtrainError):
    """A process of the run that died or stands still: starting again may mend it, and goes on from the last save."""

    exit_code = 75


def nearest(wrong: str, known: Iterable[str]) -> str:
    """ "did you mean 'x'?" for the likeliest known name, or the list of them when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {shown(', '.join(names), 100)}"


def one_line(text: str) -> str:
    """Without line breaks, and with nothing in it that a terminal would obey instead of showing."""
    words = " ".join(text.split())
    return words if words.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def shown(value: object, most: int = 60) -> str:
    """What a stranger wrote, for a message: text as it stands, the rest as Python spells it, cut to `most` characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, or a deep tree
        text = f"a long {type(value).__name__}"
    line = one_line(text[: 2 * most])
    return (line or "''") if len(line) <= most and len(text) <= 2 * most else f"{line[: most - 1]}…"
