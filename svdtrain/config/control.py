"""The schema of `sample-now`, `save-now` and `stop`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from svdtrain.config.fields import Private
from svdtrain.config.toolbox import Told


class ControlConfig(Told, Private):
    """`python -m svdtrain stop`, say."""

    texts: ClassVar = ("run",)

    run: str
    """The folder of a run that trains."""
    request: Literal["sample", "save", "stop"]
    """The command's own."""
    wait: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
    """Seconds until the run has taken it up, which it does after its next step."""
