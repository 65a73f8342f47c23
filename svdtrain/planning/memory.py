"""Peak memory of a training step, predicted without weights: the step runs on tensors that have a size and no content.

Attention counts as a fused kernel, as on a GPU: what is kept of it is query, key, value, output and one number a row, never
the L x L matrix. Not in the figure: the CUDA context, workspaces within kernels, the allocator's rounding and fragments.
"""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.library import _scoped_library
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves, tree_map

from svdtrain.acceleration.flat import FlatParameters
from svdtrain.planning.remembered import DEVICE, UNKNOWN, RememberedOperations, UncompiledMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from svdtrain.planning.costs import Costs

_LOW_IN_AUTOCAST = "convolution"
"""Likewise in half precision: the CPU knows conv2d and its kin alone."""
_FP32_IN_AUTOCAST = ("layer_norm", "group_norm", "rms_norm", "upsample_nearest2d", "upsample_nearest3d", "softmax.int")
"""Of AT_FORALL_FP32 and its kin (ATen/autocast_mode.h), what denoisers apply to large tensors; the CPU leaves it in bf16."""


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes at the moment when most are in use, by what they hold."""

    weights: int
    """Frozen parameters, buffers, and what else stays from step to step."""
    trained: int
    gradients: int
    """Those that exist at that moment."""
    optimizer: int
    activations: int
    """All else: what the backward pass needs, inputs, and what is being computed."""

    @property
    def peak(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


class LiveStorages(UncompiledMode):
    """Counts the bytes of every storage that operations make, until it is freed; real tensors and fake ones alike."""

    def __init__(self, costs: Costs | None = None) -> None:
        super().__init__()
        self.costs = costs
        """Counts the operations' work, too."""
        self.bytes_by_kind: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self._kinds: dict[int, str] = {}
        """Address of a living storage -> its kind."""
        self._below: RememberedOperations | None = None
        """Asked first, which saves torch's way down to it."""

    def __enter__(self) -> Self:
        """Count from now on."""
        below = _get_current_dispatch_mode()
        self._below = below if isinstance(below, RememberedOperations) else None
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run the operation; what is new in its results is an activation."""
        if func is DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device
        kwargs = kwargs or {}
        results = self._below.known(func, args, kwargs) if self._below else UNKNOWN
        if results is UNKNOWN:
            results = func(*args, **kwargs)
        if self.costs is not None:
            self.costs.count(func, args, kwargs, results)
        for result in (results,) if isinstance(results, Tensor) else tree_leaves(results):
            if isinstance(result, Tensor) and result.untyped_storage()._cdata not in self._kinds:
                self.count([result], "activations")
        return results

    def count(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Count these tensors' storages as this kind, whatever they were counted as before."""
        for tensor in tensors:
            if tensor is None:
                continue
            storage = tensor.untyped_storage()
            before = self._kinds.get(storage._cdata)
            if before is None:
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
            else:
                self.bytes_by_kind[before] -= storage.nbytes()
            self._kinds[storage._cdata] = kind
            self.bytes_by_kind[kind] += storage.nbytes()
        if self.bytes_by_kind.total() > self.at_peak.total():
            self.at_peak = self.bytes_by_kind.copy()

    def most(self) -> MemoryPrediction:
        """What was in use when most was."""
        return MemoryPrediction(**{kind: self.at_peak[kind] for kind in MemoryPrediction.__dataclass_fields__})

    def _forget(self, address: int, size: int) -> None:
        self.bytes_by_kind[self._kinds.pop(address)] -= size


@contextmanager
def cuda_precision() -> Iterator[None]:
    """For a while, the CPU's autocast computes in fp32, and in half precision, what CUDA's does."""
    with _scoped_library("aten", "IMPL") as library:
        library.impl(_LOW_IN_AUTOCAST, partial(_in_half, _operation(_LOW_IN_AUTOCAST)), "AutocastCPU")
        for name in _FP32_IN_AUTOCAST:
            library.impl(name, partial(_in_fp32, _operation(name)), "AutocastCPU")
        yield


def _operation(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _in_fp32(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    args, kwargs = tree_map(_upcast, (args, kwargs))
    with torch.autocast("cpu", enabled=False):
        return operation(*args, **kwargs)


def _in_half(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    half = torch.get_autocast_dtype("cpu")
    args, kwargs = tree_map(
        lambda one: one.to(half) if isinstance(one, Tensor) and one.is_floating_point() else one, (args, kwargs)
    )
    with torch.autocast("cpu", enabled=False):
        return operation(*args, **kwargs)


def _upcast(value: Any) -> Any:  # noqa: ANN401
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of training: two more numbers for each that is trained."""
    return torch.optim.AdamW(parameters, fused=True)


def predict_peak(
    denoiser: nn.Module,
    inputs: Callable[[], dict[str, Any]],
    *,
    autocast: torch.dtype | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> MemoryPrediction:
    """The peak of a training step of a denoiser on the meta device, in its dtypes, with its adapters and recomputed blocks.

    What requires gradients is trained. `inputs` makes the keywords of its forward pass, and is called where every new tensor
    is without content. `autocast`: the dtype of CUDA's autocast, under which the step runs. The denoiser stays as it was.
    """
    with without_content(denoiser):
        return measure_peak(denoiser, inputs, autocast=autocast, optimizer=optimizer)


def measure_peak(
    denoiser: nn.Module,
    inputs: Callable[[], dict[str, Any]],
    *,
    autocast: torch.dtype | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> MemoryPrediction:
    """The same of a denoiser whose tensors are on the CPU, fake or real (it is trained, then): a step that is not the first."""

    def loss() -> Tensor:
        return denoiser(**inputs(), return_dict=False)[0].float().square().mean()

    return measure_step(denoiser, loss, autocast=autocast, optimizer=optimizer)


def measure_step(
    denoiser: nn.Module,
    loss: Callable[[], Tensor],
    *,
    beside: Iterable[Tensor] = (),
    autocast: torch.dtype | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> MemoryPrediction:
    """The same with a loss of any kind, and with tensors of other networks in memory."""
    return TrainedDenoiser(denoiser, optimizer).step(loss, beside=beside, autocast=autocast)


class TrainedDenoiser:
    """A denoiser whose flat parameters and optimizer are those of a step that is not the first."""

    def __init__(
        self, denoiser: nn.Module, optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = adamw
    ) -> None:
        self.denoiser, self.trained = denoiser, [p for p in denoiser.parameters() if p.requires_grad]
        self.flat = FlatParameters({"all": self.trained})
        self.optimizer = optimizer(list(self.flat.groups.values()))
        self.optimizer.step()

    def step(
        self,
        loss: Callable[[], Tensor],
        *,
        beside: Iterable[Tensor] = (),
        autocast: torch.dtype | None = None,
        costs: Costs | None = None,
    ) -> MemoryPrediction:
        """The peak of one more; `costs` counts its operations."""
        with self.counted(beside, costs) as live:
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                error = loss()
            self.flat.zero_gradients()
            error.backward()
            self.optimizer.step()
        return live.most()

    @contextmanager
    def counted(self, beside: Iterable[Tensor] = (), costs: Costs | None = None) -> Iterator[LiveStorages]:
        """For a while, what is made is counted beside what training keeps, in CUDA's precisions and kernels."""
        live = LiveStorages(costs)
        live.count((*self.denoiser.parameters(), *self.denoiser.buffers(), *beside), "weights")
        live.count(self.trained, "trained")
        live.count([self.flat.gradients], "gradients")
        live.count((value for state in self.optimizer.state.values() for value in state.values()), "optimizer")
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION), cuda_precision(), live:
            yield live


@contextmanager
def without_content(network: nn.Module) -> Iterator[None]:
    """For a while, no new tensor has content, and fake CPU ones are parameters and buffers: attention on meta is not fused."""
    made: dict[Tensor, Tensor] = {}
    places: list[tuple[dict[str, Any], str, Tensor]] = [
        (tensors, name, tensor)
        for module in network.modules()
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]
    with FakeTensorMode(allow_non_fake_inputs=True), RememberedOperations():
        for tensors, name, tensor in places:
            if tensor not in made:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                made[tensor] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
            tensors[name] = made[tensor]
        try:
            yield
        finally:
            for tensors, name, tensor in places:
                tensors[name] = tensor
