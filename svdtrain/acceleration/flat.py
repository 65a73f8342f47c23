"""What is trained, as one fp32 tensor: clipping, reducing over ranks, averaging and AdamW are single kernels.

The network's parameters stay, by name and shape: each is a view of the one tensor, and its gradient a view of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

ALIGNED = 64
"""Each parameter begins at a multiple of so many numbers, as matrix kernels like it."""


class FlatParameters:
    """Groups of parameters in one tensor; `groups` are what an optimizer takes, one parameter each."""

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Take these fp32 parameters of one device over, values and all."""
        first = next(p for group in groups.values() for p in group)
        sizes = {name: sum(_room(p) for p in group) for name, group in groups.items()}
        self.values = nn.Parameter(torch.zeros(sum(sizes.values()), dtype=first.dtype, device=first.device))
        """[N], padded with zeros between parameters."""
        self.gradients = torch.zeros_like(self.values.data)
        self.groups: dict[str, nn.Parameter] = {}
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        start = 0
        for name, group in groups.items():
            place = start
            for parameter in group:
                view = self.values.data[place : place + parameter.numel()].view(parameter.shape)
                view.copy_(parameter.data)
                parameter.data = view
                self._views.append((parameter, self.gradients[place : place + parameter.numel()].view(view.shape)))
                place += _room(parameter)
            self.groups[name] = nn.Parameter(self.values.data[start:place])
            start = place
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """Zeros, in place; every parameter has its gradient again."""
        self.gradients.zero_()
        start = 0
        for group in self.groups.values():
            group.grad = self.gradients[start : start + len(group)]
            start += len(group)
        for parameter, gradient in self._views:
            parameter.grad = gradient

    def leave_out(self) -> None:
        """The next step of the optimizer changes nothing, its moments neither."""
        for group in self.groups.values():
            group.grad = None


def _room(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNED) * ALIGNED
