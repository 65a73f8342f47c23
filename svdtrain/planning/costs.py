"""What a step asks of a device, operation by operation: arithmetic, and bytes that are read and written."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

if TYPE_CHECKING:
    from collections.abc import Iterator

_aten: Any = torch.ops.aten


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:  # noqa: ANN401
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:  # noqa: ANN401
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


FLOPS: dict[Any, Any] = dict(flop_registry) | {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    _aten.addmm_: flop_registry[_aten.addmm],
}
"""torch's formulas, a multiply-add as two, and those that it lacks."""
_KINDS = {
    "convolution": ("convolution",),
    "attention": ("scaled_dot_product", "attention"),
    "matrix": ("mm", "addmm", "bmm", "baddbmm", "addmm_"),
    "norm": ("group_norm", "layer_norm"),
}
KINDS = (*_KINDS, "pointwise")
_FREE = {"detach", "alias", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "_unsafe_view", "t"}


class Operation(NamedTuple):
    """One call of a kernel."""

    kind: str
    """Of KINDS."""
    flops: int
    moved: int
    """Bytes of what it reads and writes, once each."""
    fp32: bool
    """Its arithmetic is in fp32, not in a half precision."""


class Costs:
    """Operations, counted as they are dispatched; of tensors without content, too."""

    def __init__(self) -> None:
        self.operations: Counter[Operation] = Counter()
        self.kept = 0
        """Numbers in what the work is for, where that is kept."""

    def count(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:  # noqa: ANN401
        """One that has run, if it is any work."""
        about = _about(func)
        if about is None:
            return
        kind, formula = about
        tensors = list(_tensors((*args, *kwargs.values(), result)))
        moved = sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}.values())
        fp32 = any(tensor.dtype == torch.float32 for tensor in tensors[:2])
        flops = formula(*args, **kwargs, out_val=result) if formula else 0
        self.operations[Operation(kind, flops, moved, fp32)] += 1

    @property
    def flops(self) -> int:
        """Of all."""
        return sum(operation.flops * count for operation, count in self.operations.items())

    @property
    def calls(self) -> int:
        """Kernels, one an operation."""
        return self.operations.total()


@cache
def _about(func: Any) -> tuple[str, Any] | None:  # noqa: ANN401
    """Kind and formula; None for what is no work: views, and tensors that are only made."""
    space, _, name = func._schema.name.partition("::")
    parts = (*func._schema.arguments, *func._schema.returns)
    if space != "aten" or name in _FREE or any(p.alias_info and not p.alias_info.is_write for p in parts):
        return None
    kind = next((kind for kind, names in _KINDS.items() if _is_named(name, kind, names)), "pointwise")
    return kind, FLOPS.get(func._overloadpacket)


def _tensors(values: Any) -> Iterator[Tensor]:  # noqa: ANN401
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _is_named(name: str, kind: str, names: tuple[str, ...]) -> bool:
    return name in names if kind == "matrix" else any(part in name for part in names)
