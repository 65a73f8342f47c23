"""`python -m svdtrain adapter resize`: a smaller rank, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, resized
from svdtrain.commands.adapter.opening import format_for, open_base, opened, say, target, write
from svdtrain.foundation.errors import UsageError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import ResizeConfig


def run(config: ResizeConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """The nearest adapter of that rank, or the smallest that keeps that share of the energy."""
    if config.rank is None and config.keep is None:
        raise UsageError("rank, keep: neither is set", "rank=8, or keep=0.95")
    file = opened(config.file, open_base(config.base))
    target(config.out, format_for(config, file))
    layers, loss = resized(file, Cut(config.rank, config.keep))
    write(config, layers, file, f"resize to {described(config.rank, config.keep)}", computed=True)
    say(f"left out: {loss.share:.2%} of the change (Frobenius)")


def described(rank: int | None, keep: float | None) -> str:
    """rank 8, keep 0.95"""
    return ", ".join(text for text in (f"rank {rank}" if rank else "", f"keep {keep:g}" if keep else "") if text)
