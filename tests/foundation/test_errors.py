"""What strangers wrote, in a message: on one line, short, and nothing that a terminal would obey."""

from __future__ import annotations

from itertools import count

import pytest

from svdtrain.foundation.errors import one_line, shown


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("a name", "a name"),
        ("", "''"),
        ("two\n lines\t", "two lines"),
        ("\x1b[31mred\u202e\ud800", r"\x1b[31mred\u202e\ud800"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("x" * 1_000_000, "x" * 59 + "…"),
        ("\0" * 60, r"\x00" * 14 + r"\x0" + "…"),
        (None, "None"),
        (10**5000, "a long int"),
        (1.5, "1.5"),
    ],
    ids=count(),
)
def test_shown(value: object, seen: str) -> None:
    assert shown(value) == seen


def test_letters_of_every_script_stay() -> None:
    assert one_line("Überfall auf 東京 💥") == "Überfall auf 東京 💥"
