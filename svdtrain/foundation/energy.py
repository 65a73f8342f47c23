"""The energy that a processor has used, by its own counter, where it has one that may be read."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Linux's counters of a CPU's packages; most machines let nobody but root read them."""


class EnergyCounter:
    """Of the card that trains, or of the CPU's packages. NVML: nvmlDeviceGetTotalEnergyConsumption, since Volta.

    A CPU's counters start again after some minutes of hard work: `read` them more often than that.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._packages = [] if device.type == "cuda" else list(filter(_is_package, powercap.glob("intel-rapl:*")))
        self._nvml, self._card = _card(device) if device.type == "cuda" else (None, None)
        self._last = self._told()
        self.joules: float | None = 0.0 if self._last else None
        """Since this was made, as of the last `read`; None where nobody counts."""

    def read(self) -> None:
        """Add what was used since."""
        now = self._told()
        if self.joules is None or not now:
            self.joules = None
            return
        for (before, _), (after, most) in zip(self._last, now, strict=True):
            self.joules += (after - before) % most if most else after - before
        self._last = now

    def _told(self) -> list[tuple[float, float]]:
        """Of each counter what it says, and where it starts again (0: it does not), in joules."""
        if self._nvml is not None:
            said = ctypes.c_ulonglong()
            failed = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card, ctypes.byref(said))
            return [] if failed else [(said.value / 1e3, 0.0)]
        with suppress(OSError, ValueError):
            return [
                (int((one / "energy_uj").read_text()) / 1e6, int((one / "max_energy_range_uj").read_text()) / 1e6)
                for one in self._packages
            ]
        return []


def _is_package(zone: Path) -> bool:
    """Other zones are parts of one, or the whole machine."""
    with suppress(OSError):
        return (zone / "name").read_text().startswith("package")
    return False


def _card(device: torch.device) -> tuple[ctypes.CDLL, ctypes.c_void_p] | tuple[None, None]:
    """NVIDIA's library and its handle of the card, or nothing."""
    with suppress(OSError, AttributeError):
        nvml, handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        if not nvml.nvmlInit_v2() and not nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return nvml, handle
    return None, None
