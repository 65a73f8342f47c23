"""The schema of `report`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from svdtrain.config.fields import Private
from svdtrain.config.toolbox import Told


class ReportConfig(Told, Private):
    """`python -m svdtrain report`."""

    texts: ClassVar = ("run", "out", "evaluation")

    run: str
    """A run folder."""
    out: str | None
    """The page: an html file; null: RUN/report.html."""
    evaluation: str | None
    """An evaluation.json or its folder; null: the newest in the run's folder."""
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """An hour of one GPU, in any currency."""
