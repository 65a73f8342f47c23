"""The ranks of a run: how they meet, and what they tell each other besides gradients."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from svdtrain.foundation.errors import LostRank, SystemFault
from svdtrain.launching.pulse import BEATS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

AGAIN = "the same command goes on from the last save"


def rank() -> int:
    """This process's number; 0 for one alone."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """The process group of a run of several ranks, which a launcher has started; alone: nothing to join.

    Raises SystemFault where they cannot meet.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started == 1:
        yield
        return
    beats = os.environ.get(BEATS_VARIABLE)
    meeting = f"file://{Path(beats) / 'meeting'}" if beats else "env://"
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        if not beats:
            socket.getaddrinfo(os.environ.get("MASTER_ADDR"), None)  # torch would ask again and again for half an hour
        distributed.init_process_group(backend, meeting, rank=rank(), world_size=started)
    except (RuntimeError, ValueError, OSError) as error:
        why = str(error).splitlines()[0]
        if (beats and "connectFullMesh" in why) or "Connection closed by peer" in why:
            raise LostRank(f"rank {rank()} lost another rank while they met", AGAIN) from error
        raise SystemFault(
            f"the ranks cannot meet ({meeting}): {why}", "MASTER_ADDR and MASTER_PORT name a free port"
        ) from error
    try:
        with lost_ranks_told():
            yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def lost_ranks_told(when: Callable[[], str] = str) -> Iterator[None]:
    """A connection that breaks is another rank's end, and no fault of this one: LostRank, which says when."""
    try:
        yield
    except RuntimeError as error:
        if distributed.is_initialized() and (
            isinstance(error, distributed.DistError) or "gloo/transport" in str(error) or "NCCL" in str(error)
        ):
            raise LostRank(f"rank {rank()} lost another rank{when()}", AGAIN) from error
        raise


def of_all(value: Any) -> list[Any]:  # noqa: ANN401
    """What each rank has, by rank, on all."""
    if not distributed.is_initialized():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def from_first(value: Any) -> Any:  # noqa: ANN401
    """What the first rank has, on all."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def meet() -> None:
    """Wait until all ranks are here."""
    of_all_ranks(torch.zeros(1, 1))


def of_all_ranks(rows_ND: Tensor) -> Tensor:
    """[N, D] of this rank to [world * N, D] of all, by rank."""
    if not distributed.is_initialized():
        return rows_ND
    parts = [torch.empty_like(rows_ND) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows_ND)
    return torch.cat(parts)
