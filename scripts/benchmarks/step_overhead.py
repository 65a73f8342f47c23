"""What the generic training step adds to its denoiser: PYTHONPATH=. python scripts/benchmarks/step_overhead.py.

Tiny random models of every family, clips encoded before, one thread. `overhead` is all of `training_step` that is neither the
family's denoiser nor its own conditions (draws, posterior, corruption, dropout, loss, record), as a share of the denoiser's
forward and backward pass; medians of interleaved steps. Written to scripts/benchmarks/results/step_overhead.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.training.module import FineTuning
from svdtrain.training.optimization import OptimizerSettings
from tests.families.cases import CASES, Case, batch_of

RESULTS = Path(__file__).parent / "results" / "step_overhead.json"
STEPS, WARM_UP = 30, 5


class Clock:
    """Seconds within a function, since it was last read."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:  # noqa: ANN401
        """Call it."""
        start = time.perf_counter()
        result = self.function(*args)
        self.seconds += time.perf_counter() - start
        return result

    def read(self) -> float:
        """And begin anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def measure(case: Case) -> dict[str, float | str]:
    """A row of the results, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        family: Any = case.load(case.save(Path(folder)))
    patterns = family.spec.targets["attention"]
    halves = inject(family.denoiser, AdapterSpec({h: HalfSpec(p, 4, 4.0, 1e-4) for h, p in patterns.items()}), seed=0)
    settings = OptimizerSettings(dict.fromkeys(patterns, 0.0001), (0.9, 0.999), 0.0, 0, "constant", 100)
    options: dict[str, Any] = {"clips_per_step": 4, "condition_dropout": 0.1, "image_dropout": 0.0}
    module = FineTuning(family, settings, halves, seed=0, cache=None, denoiser_dtype=torch.float32, **options)
    module._trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]  (for the step's number in messages)
    batch = batch_of(case, "a cat", "a dog", "a bee", "a fox")
    batch = replace(batch, encoded=family.encode_clips(batch))
    family.denoise, family.encode_conditions = Clock(family.denoise), Clock(family.encode_conditions)
    rows: list[tuple[float, float]] = []
    for step in range(WARM_UP + STEPS):
        start = time.perf_counter()
        loss = module.training_step(batch, step)
        inside = time.perf_counter() - start
        loss.backward()
        whole = time.perf_counter() - start
        denoiser, conditions = family.denoise.read(), family.encode_conditions.read()
        rows.append((inside - denoiser - conditions, whole - inside + denoiser))
    generic, network = (1e3 * statistics.median(column) for column in zip(*rows[WARM_UP:], strict=True))
    share = round(generic / network, 4)
    return {"case": case.name, "generic_ms": round(generic, 3), "denoiser_ms": round(network, 2), "overhead": share}


def main() -> None:
    """Measure, print, note."""
    quiet_packages()
    torch.set_num_threads(1)
    rows: list[dict[str, float | str]] = []
    for case in CASES:
        rows.append(row := measure(case))
        print("{case:20}{generic_ms:9} ms beside {denoiser_ms:9} ms: {overhead:.2%}".format(**row))
    about = {
        "command": "PYTHONPATH=. python scripts/benchmarks/step_overhead.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, no GPU",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    RESULTS.write_text(json.dumps(about | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
