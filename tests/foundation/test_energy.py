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
    (folder / package / "energy_uj").write_text(f"{microjoules}\n")
    (folder / package / "max_energy_range_uj").write_text(f"{most}\n")


def test_packages_are_added_and_may_start_again(tmp_path: Path) -> None:
    for package, start in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 999_000_000), ("intel-rapl:0:0", 0)):
        count(tmp_path, package, start)
    counter = EnergyCounter(CPU, tmp_path)
    for package, end in (("intel-rapl:0", 3_500_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 900_000)):
        count(tmp_path, package, end)
    assert counter.joules() == pytest.approx(2.5 + 3.0)


@pytest.mark.parametrize("after", ["nonsense", None])
def test_without_a_counter_nothing_is_known(after: str | None, tmp_path: Path) -> None:
    assert EnergyCounter(CPU, tmp_path / "nowhere").joules() is None
    count(tmp_path, "intel-rapl:0", 5)
    counter = EnergyCounter(CPU, tmp_path)
    if after:
        count(tmp_path, "intel-rapl:0", after)
    else:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert counter.joules() is None


@pytest.mark.gpu
def test_a_card_counts_watts() -> None:
    counter, start = EnergyCounter(torch.device("cuda", 0)), time.monotonic()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    while time.monotonic() - start < 2:
        (matrix @ matrix).sum().item()
    joules = counter.joules()
    assert joules is not None
    assert 20 < joules / (time.monotonic() - start) < 2000
