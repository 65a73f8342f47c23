"""The schema of `sweep`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from svdtrain.config.fields import Finite, Positive, Strict
from svdtrain.config.schema import FitConfig

Choice = bool | int | float | str | None


class Range(Strict):
    """Any number from low to high."""

    low: Finite
    high: Finite
    log: bool = False
    """Evenly over orders of magnitude."""
    whole: bool = False
    """Whole numbers alone."""


Space = dict[str, Annotated[list[Choice], Field(min_length=1)] | Range]
"""Setting of a fit -> what it may be."""


class SweepConfig(FitConfig):
    """`python -m svdtrain sweep`: the settings of the fits, but for those that are tried."""

    trials: Positive
    """Fits, of this and of earlier calls with the same `out`."""
    space: Annotated[Space, Field(min_length=1)]
    prune: bool
    """Stop a fit whose held-out loss is worse than the median of the others' at the same step."""
    out: str | None
    """The sweep's folder, where it goes on if there is one; null: runs/NAME/sweep-TIME."""
