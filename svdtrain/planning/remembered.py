"""Operations on tensors without content, remembered: what an operation returned for shapes is returned for them again.

torch's FakeTensorMode asks each operation anew, at some tenth of a millisecond; a training step has fifty thousand of them, and
most have been asked before. What is remembered are sizes, strides and dtypes of fresh results; views are made by torch's own
kernels for the meta device; what changes a tensor in place returns it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
DEVICE = torch.ops.prim.device.default
"""Asked more often than all else; each mode answers for itself."""
UNKNOWN = object()
_aten: Any = torch.ops.aten
_VIEWS = {
    getattr(getattr(_aten, name), overload)
    for name, overload in (
        ("view", "default"), ("_unsafe_view", "default"), ("t", "default"), ("transpose", "int"), ("permute", "default"),
        ("unsqueeze", "default"), ("squeeze", "dim"), ("expand", "default"), ("select", "int"), ("slice", "Tensor"),
        ("detach", "default"), ("alias", "default"), ("as_strided", "default"), ("_reshape_alias", "default"),
    )
}  # fmt: skip
_NOT_BY_SHAPES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view}

Kind = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Size, strides, dtype."""


class UncompiledMode(TorchDispatchMode):
    """Without torch's guard against its compiler, which takes as long as all else: nothing is compiled here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class RememberedOperations(UncompiledMode):
    """Over a FakeTensorMode: answers what is known, and asks it for all else."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: dict[Any, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """The operation's result."""
        if func is DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device
        kwargs = kwargs or {}
        result = self.known(func, args, kwargs)
        if result is not UNKNOWN:
            return result
        result = func(*args, **kwargs)
        if _way(func) == "fresh" and _is_here(args):
            with suppress(TypeError):
                self._answers[_key_of(func, args, kwargs)] = _kinds(result)
        return result

    def known(self, func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """The same where nobody has to be asked; UNKNOWN elsewhere."""
        way = _way(func)
        if way == "asked" or not _is_here(args):
            return UNKNOWN
        first = args[0]
        if way == "view":
            mode = first.fake_mode
            with in_kernel_invocation_manager(mode):
                viewed = func(*args, **kwargs)
            return FakeTensor(mode, viewed, CPU)
        if way == "in place":
            return first
        try:
            answer = self._answers.get(_key_of(func, args, kwargs))
        except TypeError:  # a tensor with content, or what has no hash
            return UNKNOWN
        if answer is None or answer is Ellipsis:
            return UNKNOWN
        made = [kind and _made(first.fake_mode, kind) for kind in answer[1]]
        return answer[0](made) if answer[0] else made[0]


def _is_here(args: Any) -> bool:  # noqa: ANN401
    return bool(args) and type(args[0]) is FakeTensor and args[0].fake_device == CPU


@cache
def _way(func: Any) -> str:  # noqa: ANN401
    """How an operation is answered: view, in place, fresh, or asked."""
    if func in _VIEWS:
        return "view"
    schema = func._schema
    if not schema.name.startswith("aten::") or _NOT_BY_SHAPES & set(func.tags):
        return "asked"
    aliases = [argument.alias_info for argument in schema.arguments]
    returned = [result.alias_info for result in schema.returns]
    if not any(aliases) and not any(returned):
        return "fresh"
    changes = [alias is not None and alias.is_write for alias in aliases]
    if changes[:1] == [True] and sum(changes) == 1 and len(returned) == 1 and schema.name.endswith("_"):
        return "in place"
    return "asked"


def _key_of(func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
    return (func, *map(_key, args), *((name, _key(value)) for name, value in kwargs.items()))


def _key(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, FakeTensor):
        return (value.shape, value.stride(), value.dtype, value.fake_device)
    if isinstance(value, Tensor):
        raise TypeError
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    return (value, type(value))


def _kinds(result: Any) -> Any:  # noqa: ANN401
    """Of a sequence its type, and what each of its tensors is; Ellipsis for what is not made anew so."""
    single = isinstance(result, Tensor)
    results = [result] if single else result
    if not isinstance(results, list | tuple) or not all(r is None or type(r) is FakeTensor for r in results):
        return Ellipsis
    if any(isinstance(r, FakeTensor) and (r.fake_device != CPU or r.storage_offset()) for r in results):
        return Ellipsis
    kinds = [None if r is None else (r.shape, r.stride(), r.dtype) for r in results]
    return (None if single else type(result), kinds)


def _made(mode: Any, kind: Kind) -> FakeTensor:  # noqa: ANN401
    with in_kernel_invocation_manager(mode):
        empty = torch.empty_strided(kind[0], kind[1], dtype=kind[2], device="meta")
    return FakeTensor(mode, empty, CPU)
