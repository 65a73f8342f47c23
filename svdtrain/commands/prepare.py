"""`python -m svdtrain prepare`: a folder of videos and stills becomes shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.foundation.quiet import quiet_packages
from svdtrain.preparation.job import prepare

if TYPE_CHECKING:
    from svdtrain.config.preparation import PrepareConfig


def run(config: PrepareConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Prepare, and say in one line what became of every source."""
    quiet_packages()
    console = Console()
    console.print(prepare(config, console), highlight=False, soft_wrap=True)
