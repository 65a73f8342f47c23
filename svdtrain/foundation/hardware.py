"""The device and the precision that fit it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from svdtrain.foundation.errors import UsageError

DTYPES = {"32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def choose_device(wanted: str) -> str:
    """`cuda` or `cpu`. Raises UsageError when cuda is wanted and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "trainer.device=cuda: torch sees no CUDA device",
            "trainer.device=auto (of other commands device=auto), or mend the driver",
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def training_device(wanted: str, precision: str) -> str:
    """Likewise. Raises UsageError for fp16 on a CPU, which scales no losses there."""
    device = choose_device(wanted)
    if precision == "16-mixed" and device == "cpu":
        why = "trainer.device is cpu" if wanted == "cpu" else "torch sees no CUDA device"
        raise UsageError(f"trainer.precision: 16-mixed needs a GPU, and {why}", "trainer.precision=auto")
    return device


def hardware(wanted: str) -> str:
    """What trains, in words: a card's name, or the CPU's cores."""
    if choose_device(wanted) == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} {'core' if os.cpu_count() == 1 else 'cores'}"


def memory_in_use(device: torch.device) -> dict[str, float]:
    """GiB: what this process holds of the machine's memory, and (on a GPU) the most that tensors have held of the card's."""
    used: dict[str, float] = {}
    statm = Path("/proc/self/statm")
    if statm.exists():
        used["memory_resident_gib"] = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    if device.type == "cuda":
        used["memory_peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return used


def choose_precision(wanted: str, device: str) -> str:
    """auto: fp32 on a CPU, bf16 where the card has it, else fp16 with loss scaling."""
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "32"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def is_first_rank() -> bool:
    """Whether this process is the one that writes and speaks; torchrun's number counts before Slurm's, which may start it."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def local_rank() -> int:
    """This process's number among those of its machine, which is its GPU's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_of_node() -> bool:
    """Whether this process is the one that does what its machine needs once."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))
