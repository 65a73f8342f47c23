"""What the fields of every config are made of: bounded numbers, and a model that knows all its keys."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from svdtrain.foundation.errors import UsageError

Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Level = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Item = TypeVar("Item")


Part = Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")]
"""i/n: the i-th of n jobs of an array."""


def every_nth(part: str | None) -> slice:
    """What of a list is this part's; all of it where there are no parts. UsageError for i above n."""
    number, parts = (int(word) for word in (part or "1/1").split("/"))
    if number > parts:
        raise UsageError(f"part={part}: there is no part {number} of {parts}", f"part=1/{parts} to {parts}/{parts}")
    return slice(number - 1, None, parts)


def listed(value: Item | list[Item] | None) -> list[Item]:
    """None, one or several, as a list."""
    if value is None:
        return []
    return [*value] if isinstance(value, list) else [value]


def each_strength(strength: Item | list[Item], adapters: int) -> list[Item]:
    """One number for each adapter; the checks have seen to it that there is one, or one for all."""
    numbers = listed(strength)
    return numbers * adapters if len(numbers) == 1 else numbers[:adapters]


class Strict(BaseModel):
    """No unknown keys, no change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Private(Strict):
    """A command that may be kept from the network."""

    privacy: Annotated[
        Literal["standard", "airgapped"],
        Field(description="airgapped: an attempt to reach another machine ends the run; see SECURITY.md"),
    ] = "standard"


class NoiseLevels(Strict):
    """sigma = exp(Normal(mean, std)), clamped to [minimum, maximum]."""

    mean: Finite
    std: Annotated[float, Field(gt=0, le=10)]
    minimum: Level = 0.002
    maximum: Level = 700.0
