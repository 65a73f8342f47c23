"""Energy is what a counter says, and nothing where none may be read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from svdtrain.foundation.energy import EnergyCounter

CPU = torch.device("cpu")


def count(folder: Path, package: str, microjoules: int | str, most: int = 1_000_000_000) -> None:
    (folder / package).mkdir(exist_ok=True)
    name = {"intel-rapl:1": "psys"}.get(package, "package-0" if package.count(":") == 1 else "core")
    (folder / package / "name").write_text(f"{name}\n")
    (folder / package / "energy_uj").write_text(f"{microjoules}\n")
    (folder / package / "max_energy_range_uj").write_text(f"{most}\n")


def test_packages_are_added_and_may_start_again_and_again(tmp_path: Path) -> None:
    """psys holds the packages, core is a part of one."""
    readings = {"intel-rapl:0": (1, 3.5, 2, 1), "intel-rapl:1": (5, 6, 7, 8), "intel-rapl:2": (9, 9, 9.5, 4)}
    readings |= {"intel-rapl:0:0": (0, 1, 2, 3)}
    for package, joules in readings.items():
        count(tmp_path, package, round(joules[0] * 1e6), 10_000_000)
    counter = EnergyCounter(CPU, tmp_path)
    for time_ in (1, 2, 3):
        for package, joules in readings.items():
            count(tmp_path, package, round(joules[time_] * 1e6), 10_000_000)
        counter.read()
    assert counter.joules == pytest.approx((2.5 + 8.5 + 9) + (0 + 0.5 + 4.5))


@pytest.mark.parametrize("after", ["nonsense", None])
def test_without_a_counter_nothing_is_known(after: str | None, tmp_path: Path) -> None:
    assert EnergyCounter(CPU, tmp_path / "nowhere").joules is None
    count(tmp_path, "intel-rapl:0", 5)
    counter = EnergyCounter(CPU, tmp_path)
    if after:
        count(tmp_path, "intel-rapl:0", after)
    else:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    counter.read()
    assert counter.joules is None


@pytest.mark.gpu
def test_a_card_counts_watts() -> None:
    counter, start = EnergyCounter(torch.device("cuda", 0)), time.monotonic()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    while time.monotonic() - start < 2:
        (matrix @ matrix).sum().item()
    counter.read()
    assert counter.joules is not None
    assert 20 < counter.joules / (time.monotonic() - start) < 2000
