"""Ranks whose weights have come apart: all end alike, and the odd one is named."""

from __future__ import annotations

import multiprocessing
import re

import pytest
import torch
from torch import distributed

from svdtrain.foundation.errors import NumericError
from svdtrain.training.callbacks.same_weights import digest, refuse_different

CASES: list[tuple[int, list[int], str]] = [
    (2, [], "same"),
    (2, [1], "rank 0, 1"),
    (3, [1], "rank 1"),
    (3, [2, 1], "rank 0, 1, 2"),
]
"""How many ranks, which of them are odd, and what all say."""


def rank(number: int, meetings: list[str], said: multiprocessing.Queue[tuple[int, str]]) -> None:
    """All cases in one process, for its imports take longer than they do."""
    for case, (ranks, odd, _) in enumerate(CASES):
        if number >= ranks:
            continue
        distributed.init_process_group("gloo", f"file://{meetings[case]}", rank=number, world_size=ranks)
        weights = [torch.arange(6.0).reshape(2, 3), torch.ones(4)]
        if number in odd:
            weights[1].view(torch.int32)[2] ^= 1 << number
        try:
            refuse_different(weights, 40, torch.device("cpu"))
            said.put((case, "same"))
        except NumericError as error:
            said.put((case, error.message))
        distributed.barrier()
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """case -> what its ranks have said."""
    context = multiprocessing.get_context("spawn")
    said, folder = context.Queue(), tmp_path_factory.mktemp("meetings")
    meetings = [str(folder / str(case)) for case in range(len(CASES))]
    processes = [context.Process(target=rank, args=(number, meetings, said)) for number in range(3)]
    for process in processes:
        process.start()
    found: dict[int, list[str]] = {}
    for _ in range(sum(ranks for ranks, *_ in CASES)):
        case, line = said.get(timeout=120)
        found.setdefault(case, []).append(line)
    for process in processes:
        process.join()
    return found


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: "{} ranks, odd: {}".format(*CASES[case]))
def test_one_bit_on_one_rank_is_found_on_all(lines: dict[int, list[str]], case: int) -> None:
    ranks, odd, named = CASES[case]
    assert len(lines[case]) == ranks
    [line] = set(lines[case])
    assert re.search(rf"come apart by step 40: {named} " if odd else named, line), line


def test_any_bit_of_any_dtype_counts() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.ones(3, 2, dtype=dtype)
        other = weight.clone()
        other.view(torch.int16).view(-1)[3] ^= 1
        assert digest([weight]) == digest([weight.clone()])
        assert len({digest([weight]), digest([other]), digest([weight, weight])}) == 3
