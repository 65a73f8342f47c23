"""Memory that ran out is known by what torch, numpy and Python say, and measured against the limit that it met."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from svdtrain.foundation.out_of_memory import in_use, is_out_of_memory

TOO_MUCH = 2**45

REAL = {
    "torch": lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
    "numpy": lambda: np.empty(TOO_MUCH, np.uint8),
    "python": lambda: bytearray(TOO_MUCH),
}


@pytest.mark.parametrize("kind", REAL)
def test_what_allocators_really_say_is_understood(kind: str) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        REAL[kind]()
    assert is_out_of_memory(caught.value)
    more = "" if kind == "python" else " when 32768.0 GiB more were asked"
    assert re.fullmatch(rf"in use \d+\.\d of \d+\.\d GiB{more}", in_use(caught.value, "cpu"))


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total"), "512 MiB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total"), "1.5 GiB"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), ""),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
        (RuntimeError("std::bad_alloc"), ""),
        (OSError(12, "Cannot allocate memory"), ""),
    ],
)
def test_what_others_say_is_understood(error: BaseException, asked: str) -> None:
    assert is_out_of_memory(error)
    assert in_use(error, "cpu").endswith(f"when {asked} more were asked" if asked else "GiB")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), OSError(28, "No space left"), ValueError("memory")]
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_limit_of_addresses_is_what_is_measured_where_there_is_one() -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from svdtrain.foundation.out_of_memory import in_use
print(in_use(MemoryError(), "cpu"))
held = bytearray(2**30)
del held
print(in_use(MemoryError(), "cpu"))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = (float(used) for used in re.findall(r"in use ([\d.]+) of 3\.0 GiB", said))
    assert after == pytest.approx(before + 1, abs=0.15)
