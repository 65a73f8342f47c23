"""The schema of `report`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from svdtrain.config.fields import Private
from svdtrain.config.toolbox import Told


class ReportConfig(Told, Private):
    """`python -m svdtrain report`."""

    comma_lists: ClassVar = ("run",)
    texts: ClassVar = ("run", "out", "evaluation")

    run: Annotated[list[str], Field(min_length=1, max_length=8)]
    """A run folder; of several, a page that compares them."""
    out: str | None
    """The page: an html file; null: RUN/report.html, and comparison.html here for several."""
    evaluation: str | None
    """An evaluation.json or its folder; null: the newest in the run's folder."""
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """An hour of one GPU, in any currency."""
