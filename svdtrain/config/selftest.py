"""The schema of `selftest`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from svdtrain.config.fields import Positive
from svdtrain.config.toolbox import Told


class SelftestConfig(Told):
    """`python -m svdtrain selftest`."""

    kill: Positive
    """How often a short fit of the packaged model is killed (SIGKILL), at random instants, before its result is compared."""
    steps: Positive
    """Of that fit."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Of the instants."""
    out: str | None
    """A folder for the runs, which stay there; null: a temporary one."""
