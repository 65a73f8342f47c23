"""Regular expressions out of files: matched only where no input can make them slow."""

from __future__ import annotations

import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 20_000
MOST_REPEATS = 5
"""Unbounded repeats in a row: time grows with the length of a name to this power."""


def safe_pattern(pattern: str) -> re.Pattern[str]:
    """Compiled. Raises ValueError for one that is no expression, or could take for ever."""
    if len(pattern) > LONGEST:
        raise ValueError(f"a pattern of {len(pattern):,} characters")
    try:
        compiled, repeats = re.compile(pattern), _repeats(parser.parse(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"'{pattern[:60]}' is no regular expression ({error})") from error
    if repeats > MOST_REPEATS:
        raise ValueError(f"'{pattern[:60]}' repeats within repeats")
    return compiled


def _repeats(tree: Any) -> int:  # noqa: ANN401  (re's own parse tree)
    """Unbounded repeats that can follow each other; many where one holds another."""
    total = 0
    for code, value in tree:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            _, most, inside = value
            nested = _repeats(inside)
            total += (
                nested if most == 1 else 1 + nested * MOST_REPEATS if most is codes.MAXREPEAT else most * nested + 1
            )
        elif code is codes.SUBPATTERN:
            total += _repeats(value[-1])
        elif code is codes.ATOMIC_GROUP:
            total += _repeats(value)
        elif code is codes.BRANCH:
            total += max(_repeats(branch) for branch in value[1])
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            total += _repeats(value[1])
        elif code is codes.GROUPREF_EXISTS:
            total += sum(_repeats(branch) for branch in value[1:] if branch)
    return total
