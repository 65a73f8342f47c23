"""`python -m svdtrain adapter to-lora`: a plain LoRA of a DoRA, LoHa or LoKr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, to_lora
from svdtrain.commands.adapter.opening import format_for, open_base, opened, say, target, write
from svdtrain.commands.adapter.resize import described

if TYPE_CHECKING:
    from svdtrain.config.toolbox import ToLoraConfig


KEEP = 0.999
"""Where neither rank nor keep is asked for."""


def run(config: ToLoraConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """The nearest LoRA to what the adapter does to its base; a DoRA needs base=…."""
    if config.rank is None and config.keep is None:
        config = config.model_copy(update={"keep": KEEP})
    base = open_base(config.base)
    file = opened(config.file, base)
    target(config.out, format_for(config, file))
    layers, loss = to_lora(file, Cut(config.rank, config.keep), base.weight if base else None)
    write(config, layers, file, f"to-lora {described(config.rank, config.keep)}", computed=True)
    say(f"left out: {loss.share:.2%} of the change (Frobenius)")
