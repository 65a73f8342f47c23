"""`python -m svdtrain selftest`: what svdtrain promises when things go wrong, repeated on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from svdtrain.config.selftest import SelftestConfig


def run(config: SelftestConfig, overrides: list[str]) -> int:  # noqa: ARG001
    """0 when everything was as promised."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if config.test == "faults":
        from svdtrain.selftest.runner import run_table

        return run_table(config, console)
    from svdtrain.selftest.kills import kill_and_compare

    return kill_and_compare(config, console)
