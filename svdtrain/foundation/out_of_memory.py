"""Memory that ran out: how torch, numpy and Python say so, and how much of how much is in use."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LESS = "less at once: data.batch_size=1, memory=nested, fewer model.frames"
"""The hint where nothing better is known."""
_KINDS = {"OutOfMemoryError", "MemoryError"}
_SAID = re.compile(r"DefaultCPUAllocator|CUDA error: out of memory|ALLOC_FAILED|bad_alloc|Cannot allocate memory")
_ASKED = re.compile(r"allocate ([\d.]+) ?([KMGT]?)(?:iB|bytes)")
_UNITS = "KMGT"


def is_out_of_memory(error: BaseException) -> bool:
    """By the class's name or, where that is a plain RuntimeError or OSError, by what allocators say."""
    if {kind.__name__ for kind in type(error).__mro__} & _KINDS:
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_SAID.search(str(error)))


def in_use(error: BaseException, device: str) -> str:
    """`in use 7.9 of 8.0 GiB when 512 MiB more were asked`: the most that there was since the start, and its limit.

    Of a GPU: this process's tensors, and the card. Of a CPU: addresses where they are limited (ulimit -v), else memory.
    """
    used, limit = _of_gpu() if device == "cuda" else _of_process()
    asked = _ASKED.search(str(error))
    more = f" when {shown_size(_bytes(*asked.groups()))} more were asked" if asked else ""
    return f"in use {used / 2**30:.1f} of {limit / 2**30:.1f} GiB{more}"


def shown_size(size: float) -> str:
    """`7.4 GiB`, or whole MiB below one GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _bytes(number: str, unit: str) -> float:
    return float(number) * 1024 ** (_UNITS.index(unit) + 1 if unit else 0)


def _of_gpu() -> tuple[int, int]:
    import torch

    return torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]


def _of_process() -> tuple[int, int]:
    import os
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/status")
    if limit != resource.RLIM_INFINITY and status.is_file():
        (peak,) = re.findall(r"VmPeak:\s+(\d+) kB", status.read_text())
        return int(peak) * 1024, limit
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return used, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
