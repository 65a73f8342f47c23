"""What a row of the command table says."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Command:
    """A row of the command table."""

    name: str
    module: str
    """Holds `run(config, overrides) -> exit code or None`."""
    config_name: str
    """The primary file under configs/."""
    schema: str
    """MODULE.CLASS under svdtrain/config/."""
    summary: str
    examples: tuple[str, ...]
    light: bool = False
    """Of many small matrices, on which several threads of a BLAS only get into each other's way."""
    bare: str = ""
    """The key that words without `=` are values of: `adapter info FILE` is `adapter info file=FILE`."""

    def settings(self) -> type[BaseModel]:
        """Its schema, imported now."""
        module, _, name = self.schema.partition(".")
        return getattr(import_module(f"svdtrain.config.{module}"), name)
