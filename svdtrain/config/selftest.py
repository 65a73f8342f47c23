"""The schema of `selftest`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from svdtrain.config.fields import Positive
from svdtrain.config.toolbox import Told


class SelftestConfig(Told):
    """`python -m svdtrain selftest`."""

    comma_lists: ClassVar = ("rows",)
    texts: ClassVar = ("out",)

    test: Literal["kills", "faults"]
    """kills: a short fit is killed again and again, and has to end in the same bytes; faults: each of a table of faults has
    to be answered by its exit code and one line."""
    kill: Positive
    """kills: how often that fit of the packaged model is killed (SIGKILL), at random instants."""
    steps: Positive
    """kills: of that fit."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """kills: of the instants."""
    ranks: Annotated[int, Field(ge=1, le=2)]
    """kills: processes that train together, in the fit that is killed and in the one that is not."""
    rows: list[Positive]
    """faults: the numbers of the rows; []: all."""
    jobs: Positive | None
    """faults: rows at once; null: one for each core, at most four."""
    out: str | None
    """A new folder: of kills for the runs, which stay there; of faults for faults.json; null: neither is kept."""
