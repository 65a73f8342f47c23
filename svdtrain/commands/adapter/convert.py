"""`python -m svdtrain adapter convert`: the same adapter in another program's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.commands.adapter.opening import open_base, opened, write

if TYPE_CHECKING:
    from svdtrain.config.toolbox import ConvertConfig


def run(config: ConvertConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Names and scale change, numbers do not: there and back is the same file."""
    file = opened(config.file, open_base(config.base))
    write(config, file.layers, file, "", computed=False)
