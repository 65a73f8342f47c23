"""A training step by each variant, side by side on a CPU: PYTHONPATH=. python -m scripts.benchmarks.training_step.

fp32, one thread and its CPU time, random weights of fixed seeds. Within each case all variants see the same batches, and their
losses over 15 steps have to agree to 1e-5. Then what a step costs against frames, pixels and clips. Written to
scripts/benchmarks/results/training_step.json.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks.models import MODELS, make_family
from scripts.benchmarks.timing import compare, largest_gap, machine, write
from scripts.benchmarks.variants import VARIANTS, Step, make_clips
from svdtrain.foundation.quiet import quiet_packages

RESULTS = Path(__file__).parent / "results" / "training_step.json"
WARM_UP, ROUNDS, SAME = 3, 11, 1e-5
CHIEF = ("plain", "plain_checkpointing", "strong", "strong_checkpointing", "ours", "ours_blocks")
CASES: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("nano", 8, 64, CHIEF),
    ("nano", 8, 128, CHIEF),
    ("four_levels", 2, 128, CHIEF),
)
"""Model, frames, pixels of a side, variants."""
SIZES = {
    "frames": [(frames, 64, 1) for frames in (2, 4, 8)],
    "pixels": [(2, side, 1) for side in (32, 64, 96)],
    "clips": [(2, 64, clips) for clips in (1, 2, 4)],
}
"""What grows: frames, pixels of a side and clips of each step."""


def run(model: str, frames: int, side: int, clips: int, variants: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Rows of the variants, with the gap of each one's losses from the first's."""
    family = make_family(MODELS[model], "cpu", torch.float32)
    steps = {name: Step(VARIANTS[name], family) for name in variants}
    batch = make_clips(family, clips, frames, side, side, WARM_UP + rounds + 1)
    rows = compare(steps, batch, "cpu", rounds=rounds, warm_up=WARM_UP, deadline=math.inf)
    for name in variants:
        rows[name]["gap"] = largest_gap(rows[name]["losses"], rows[variants[0]]["losses"])
        assert rows[name]["gap"] <= SAME, (name, rows[name]["gap"])
    return {"model": model, "frames": frames, "side": side, "clips": clips, "rows": rows}


def say(case: dict[str, Any]) -> None:
    """A line for each variant."""
    print("{model}, {frames} frames of {side} x {side}, {clips} a step".format(**case), flush=True)
    for name, row in case["rows"].items():
        peak = row["peak"] / 2**20
        print(f"  {name:22}{row['median_ms']:9.1f} ms{peak:9.1f} MiB  losses within {row['gap']:.1e}", flush=True)


def main() -> None:
    """Measure, print, note after each case."""
    quiet_packages()
    torch.set_num_threads(1)
    results: dict[str, Any] = {**machine(), "warm_up": WARM_UP, "rounds": ROUNDS, "cases": [], "sizes": {}}
    for model, frames, side, variants in CASES:
        results["cases"].append(case := run(model, frames, side, 1, variants, ROUNDS))
        say(case)
        write(RESULTS, results)
    for what, sizes in SIZES.items():
        results["sizes"][what] = []
        for size in sizes:
            results["sizes"][what].append(case := run("nano", *size, ("strong", "ours", "ours_blocks"), 3))
            say(case)
            write(RESULTS, results)


if __name__ == "__main__":
    main()
