"""How strongly an adapter is used: one number, or one for each half, written SPATIAL/TEMPORAL."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema


class Strength(NamedTuple):
    """Of each half: 1 as trained, 0 the base."""

    spatial: float
    temporal: float

    def __str__(self) -> str:
        return _short(self.spatial) if self.is_even else f"{_short(self.spatial)}/{_short(self.temporal)}"

    @property
    def is_even(self) -> bool:
        """Whether both halves have the same."""
        return self.spatial == self.temporal

    def of(self, half: str) -> float:
        """One half's."""
        return self.temporal if half == "temporal" else self.spatial

    @property
    def told(self) -> float | str:
        """As a config has it."""
        return self.spatial if self.is_even else str(self)


def _short(number: float) -> str:
    """No digit lost: 1, 0.25."""
    return short if float(short := f"{number:g}") == number else repr(number)


def even(strength: float) -> Strength:
    """The same of both halves."""
    return Strength(float(strength), float(strength))


def read_strength(value: object) -> Strength:
    """A number, or text: 0.8, 0.8/0.5. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Strength):
        raise ValueError("no number")
    if isinstance(value, Strength):
        return value
    halves = [float(word) for word in str(value).split("/")]
    if len(halves) > 2 or not all(map(math.isfinite, halves)):
        raise ValueError("one finite number, or one for each half")
    return Strength(halves[0], halves[-1])


StrengthSetting = Annotated[
    Strength,
    PlainValidator(read_strength),
    PlainSerializer(lambda strength: strength.told),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["0.8/0.5 (spatial/temporal)"]}]}),
]
"""A number for both halves, or text: SPATIAL/TEMPORAL."""
