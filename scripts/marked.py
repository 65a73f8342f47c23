"""A part of a page between two marks, which a script writes and the tests hold to its source."""

from __future__ import annotations


def with_part(page: str, begin: str, end: str, part: str) -> str:
    """The page with what stands between the marks made anew; the marks stay."""
    before, _, rest = page.partition(begin)
    return before + begin + part + end + rest.partition(end)[2]
