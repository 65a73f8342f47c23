"""The schema of `push`: what goes to the Hub, and where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from svdtrain.config.fields import Strict


class PushConfig(Strict):
    """`python -m svdtrain push`."""

    folder: str
    """What export wrote: adapter files, README.md, samples."""
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """OWNER/NAME of a model repository; made when there is none."""
    private: bool
    """Of a new repository. true is also a promise: nothing is added to one that is public."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")] | None
    """A branch, made when there is none; null: main."""
    message: Annotated[str, Field(min_length=1)]
    """Of the commit."""
    private_metadata: bool
    """Send files that name places on this machine, too."""
    dry_run: bool
    """Say what would leave, and send nothing."""
