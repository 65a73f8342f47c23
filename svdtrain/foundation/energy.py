"""The energy that a processor has used, by its own counter, where it has one that may be read."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Linux's counters of a CPU's packages; most machines let nobody but root read them."""


class EnergyCounter:
    """Of the card that trains, or of the CPU's packages. NVML: nvmlDeviceGetTotalEnergyConsumption, since Volta."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._packages = [] if device.type == "cuda" else sorted(powercap.glob("intel-rapl:[0-9]*"))
        self._packages = [one for one in self._packages if one.name.count(":") == 1]  # others are parts of them
        self._nvml, self._card = _card(device) if device.type == "cuda" else (None, None)
        self._before = self._read()

    def joules(self) -> float | None:
        """Since this was made; None where nobody counts."""
        now = self._read()
        if not now or len(now) != len(self._before):
            return None
        return sum(
            (end - start) % most if most else end - start
            for (start, _), (end, most) in zip(self._before, now, strict=True)
        )

    def _read(self) -> list[tuple[float, float]]:
        """Of each counter what it says, and where it starts again (0: it does not), in joules."""
        if self._nvml is not None:
            told = ctypes.c_ulonglong()
            failed = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card, ctypes.byref(told))
            return [] if failed else [(told.value / 1e3, 0.0)]
        with suppress(OSError, ValueError):
            return [
                (int((one / "energy_uj").read_text()) / 1e6, int((one / "max_energy_range_uj").read_text()) / 1e6)
                for one in self._packages
            ]
        return []


def _card(device: torch.device) -> tuple[ctypes.CDLL, ctypes.c_void_p] | tuple[None, None]:
    """NVIDIA's library and its handle of the card, or nothing."""
    with suppress(OSError, AttributeError):
        nvml, handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        if not nvml.nvmlInit_v2() and not nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return nvml, handle
    return None, None
