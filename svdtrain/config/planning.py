"""The schema of `plan`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from svdtrain.config.schema import FitConfig


class PlanConfig(FitConfig):
    """`python -m svdtrain plan`: the settings of the fit that is to follow, and where it is to run."""

    comma_lists: ClassVar = ("card",)
    texts: ClassVar = ("runs",)

    card: list[str]
    """One or several of the table; []: all of them."""
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """An hour of one GPU, in any currency."""
    runs: str | None
    """A folder of runs NAME/TIME: what those on a card took mends what is predicted for it; null: the table alone."""
    format: Literal["text", "json"]
