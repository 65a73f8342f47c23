"""`python -m svdtrain adapter to-lora`: a plain LoRA of a DoRA, LoHa or LoKr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, to_lora, weight_shape
from svdtrain.commands.adapter.opening import open_base, opened, say, target, write
from svdtrain.commands.adapter.resize import described
from svdtrain.foundation.errors import UsageError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import ToLoraConfig


def run(config: ToLoraConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """The nearest LoRA to what the adapter does to its base; a DoRA needs base=…."""
    if config.rank is None and config.keep is None:
        raise UsageError("rank, keep: neither is set", "rank=16, or keep=0.999")
    base = open_base(config.base)
    file = opened(config.file, base)
    target(config.out, config.to or file.format)

    def shape(module: str) -> tuple[int, ...]:
        return file.layout.shapes[module] if file.layout else weight_shape(file.layers[module])

    layers, loss = to_lora(file.layers, Cut(config.rank, config.keep), base.weight if base else None, shape)
    write(config, layers, file, f"to-lora {described(config.rank, config.keep)}", computed=True)
    say(f"left out: {loss.share:.2%} of the change (Frobenius)")
