"""Where a step's time goes on a GPU, by operator: PYTHONPATH=. python -m scripts.benchmarks.operators OUT_DIR [--tiny].

svdtrain's own step with all kept, by torch's profiler. The efficiencies of svdtrain/planning/cards.py are fitted to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from scripts.benchmarks.gpu_cases import DRAWS
from scripts.benchmarks.models import MODELS, make_family
from scripts.benchmarks.timing import Clock, machine, write
from scripts.benchmarks.variants import VARIANTS, Step, make_clips
from svdtrain.foundation.quiet import quiet_packages

SIZES = ((14, 576, 1024), (25, 576, 1024), (14, 320, 512), (14, 256, 256))
WARM_UP, STEPS = 3, 2


def operators(step: Step, frames: int, height: int, width: int) -> dict[str, Any]:
    """Milliseconds and calls of each operator in one step, the longest first; and the step's own time, unprofiled."""
    device = step.family.device.type
    clips = make_clips(step.family, 1, frames, height, width, DRAWS)
    clock = Clock(device)
    for number in range(WARM_UP):
        step(clips, number)
    alone = min(clock(lambda number=number: step(clips, number))[0] for number in range(STEPS))
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device == "cuda")]
    with profile(activities=kinds) as seen:
        for number in range(STEPS):
            step(clips, number)
        if device == "cuda":
            torch.cuda.synchronize()
    spent = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    rows = [
        {"name": row.key, "calls": row.count / STEPS, "ms": getattr(row, spent) / 1e3 / STEPS}
        for row in seen.key_averages()
        if getattr(row, spent) > 0
    ]
    return {"step_ms": alone, "operators": sorted(rows, key=lambda row: -row["ms"])}


def main() -> None:
    """Write OUT_DIR/operators.json after each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    quiet_packages()
    device, dtype = ("cpu", torch.float32) if given.tiny else ("cuda", torch.bfloat16)
    step = Step(VARIANTS["ours"], make_family(MODELS["tiny" if given.tiny else "svd"], device, dtype))
    results: dict[str, Any] = {**machine(), "sizes": {}}
    for size in ((2, 32, 32),) if given.tiny else SIZES:
        results["sizes"]["x".join(map(str, size))] = operators(step, *size)
        write(given.out / "operators.json", results)


if __name__ == "__main__":
    main()
