"""`python -m svdtrain adapter slice`: the motion, the look, or some blocks of an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.adapters.targets import half_of
from svdtrain.commands.adapter.opening import expression, open_base, opened, write
from svdtrain.foundation.errors import ModelError, UsageError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import SliceConfig


def run(config: SliceConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """What is in the half, in the blocks and matches the pattern is kept, bit for bit."""
    if config.half is None and config.blocks is None and config.pattern is None:
        raise UsageError("half, blocks, pattern: none is set", "half=temporal keeps the motion, half=spatial the look")
    file = opened(config.file, open_base(config.base))
    pattern = expression(config.pattern or ".*")
    blocks = tuple(f"{block}." for block in config.blocks or [])
    kept = {
        module: layer
        for module, layer in file.layers.items()
        if config.half in (None, half_of(module))
        and (not blocks or module.startswith(blocks))
        and pattern.fullmatch(module)
    }
    if not kept:
        some = ", ".join(f"'{module}'" for module in list(file.layers)[:3])
        raise ModelError(f"{file.path}: none of its {len(file.layers)} modules is meant", f"it has {some} …")
    words = [config.half or "", *(config.blocks or []), config.pattern or ""]
    write(config, kept, file, f"slice {' '.join(filter(None, words))}", computed=False)
