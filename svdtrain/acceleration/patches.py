"""Other forward passes for modules that stay what they are: names, parameters and classes; and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class Patches:
    """Forward passes that were replaced, in order."""

    def __init__(self) -> None:
        self._taken_off: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._taken_off)

    def forward(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        """From now on the module computes this; hooks stay around it."""
        before = module.__dict__.get("forward")
        module.forward = forward
        self.undo(lambda: module.__dict__.__setitem__("forward", before) if before else module.__dict__.pop("forward"))

    def undo(self, action: Callable[[], object]) -> None:
        """What else is to be done when all is taken off."""
        self._taken_off.append(lambda: (action(), None)[1])

    def close(self) -> None:
        """Take all off, the newest first."""
        while self._taken_off:
            self._taken_off.pop()()
