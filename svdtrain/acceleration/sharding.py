"""FSDP2 over the frozen base: a rank keeps a part of each repeated block, and has the whole block while that one computes.

What is trained stays whole on every rank, and so does what lies between the blocks.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh


class ShardedBase:
    """Put over a denoiser on the CPU, in its final precision, with adapters and recomputed blocks in place.

    Each block goes to the mesh's device as it is cut. From then on every pass is one of all ranks of the mesh together.
    """

    def __init__(self, denoiser: nn.Module, class_names: Sequence[str], mesh: DeviceMesh) -> None:
        self.bytes_sent = 0
        """By this rank, to the others, so far: of parts of blocks."""
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module", category=UserWarning
        )  # none is changed in place
        trained = {parameter for parameter in denoiser.parameters() if parameter.requires_grad}
        for block in reversed(list(_blocks(denoiser, class_names))):  # those within others first
            fully_shard(block, mesh=mesh, ignored_params=trained)
            block.set_custom_all_gather(self)  # type: ignore[attr-defined]
        fully_shard(denoiser, mesh=mesh, ignored_params=set(denoiser.parameters()))

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What FSDP asks for before it gathers."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  # fmt: skip
        """FSDP's gathering of a block, counted."""
        self.bytes_sent += input_tensor.nbytes * (group.size() - 1)
        gather: Any = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
        return gather(output_tensor, input_tensor, group=group, async_op=async_op)


def bytes_of_blocks(denoiser: nn.Module, class_names: Sequence[str], size: int) -> int:
    """Of all that is frozen in repeated blocks, at `size` bytes a number: what ranks share."""
    frozen = {p for block in _blocks(denoiser, class_names) for p in block.parameters() if not p.requires_grad}
    return size * sum(p.numel() for p in frozen)


def bytes_elsewhere(denoiser: nn.Module, class_names: Sequence[str], size: int, ranks: int) -> int:
    """Of what ranks share, how much the others keep while a block computes and the next one is on its way."""
    largest = max((_frozen(block) for block in _blocks(denoiser, class_names)), default=0)
    return max(0, (ranks - 1) * bytes_of_blocks(denoiser, class_names, size) // ranks - 2 * size * largest)


def gathered_per_batch(block_bytes: int, ranks: int) -> int:
    """Bytes that each rank sends for a forward and a backward pass; FSDP fetches one block more after a look."""
    return 2 * (ranks - 1) * block_bytes // ranks


def _frozen(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in block.parameters() if not parameter.requires_grad)


def _blocks(denoiser: nn.Module, class_names: Sequence[str]) -> Iterable[nn.Module]:
    return (module for module in denoiser.modules() if type(module).__name__ in class_names)
