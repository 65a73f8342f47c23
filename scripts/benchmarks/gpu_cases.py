"""What gpu.sh measures: PYTHONPATH=. python -m scripts.benchmarks.gpu_cases OUT_DIR [--tiny] [--seconds 480].

The published Stable Video Diffusion with random weights in bf16, most important cases first; each case is written when it is
done, so that a run that is cut off leaves what it had. --tiny: the same on a CPU, with two narrow levels and a few pixels.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks.kernels import KERNELS, matrix_rate
from scripts.benchmarks.models import MODELS, make_family
from scripts.benchmarks.timing import MEMORY_ERRORS, compare, first_line, largest_gap, machine, write
from scripts.benchmarks.variants import VARIANTS, Step, make_clips
from svdtrain.acceleration.attention import kernel_at_work
from svdtrain.families.svd import SVDFamily
from svdtrain.foundation.quiet import quiet_packages

BASELINES = ("plain", "plain_checkpointing", "strong", "strong_checkpointing")
OURS = ("ours", "ours_feed_forward", "ours_blocks", "ours_nested", "ours_offload")
WARM_UP = 2
DRAWS = 16


@dataclass(frozen=True)
class Case:
    """A size, and the variants that run it side by side."""

    frames: int
    height: int
    width: int
    batch: int = 1
    variants: tuple[str, ...] = (*BASELINES, *OURS)
    rounds: int = 10
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.frames}x{self.height}x{self.width} batch {self.batch}")


COMPILED = ("strong_checkpointing", "ours", "ours_compiled")
CASES = (
    Case(14, 576, 1024, variants=(*BASELINES, *OURS, "ours_fused"), rounds=6),
    Case(25, 576, 1024, rounds=3),
    Case(14, 256, 256, rounds=10),
    Case(14, 576, 1024, variants=COMPILED, rounds=5),
    Case(14, 256, 256, variants=(*COMPILED, "ours_graphs"), rounds=10),
    Case(14, 320, 512, rounds=6),
    *(Case(14, 256, 256, batch, ("strong", "ours"), 6) for batch in (2, 4, 8, 16)),
    Case(25, 320, 512, rounds=5),
    Case(25, 256, 256, rounds=6),
    Case(25, 576, 1024, variants=COMPILED, rounds=3),
    Case(14, 320, 512, variants=(*COMPILED, "ours_graphs"), rounds=6),
)
TINY = (
    Case(2, 32, 32, rounds=2),
    Case(2, 32, 32, 2, ("strong", "ours"), 2),
)


def main() -> None:
    """Measure, and write after each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--cases", default="", help="only those whose name begins so, such as 14x576")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="only these, with commas between them")
    given = parser.parse_args()
    quiet_packages()
    start = time.monotonic()
    device = "cpu" if given.tiny else "cuda"
    model, dtype = ("tiny", torch.float32) if given.tiny else ("svd", torch.bfloat16)
    if given.tiny:
        torch.set_num_threads(1)
    results: dict[str, Any] = {**machine(), "model": model, "dtype": str(dtype), "seconds": {}, "cases": []}
    path = given.out / "results.json"

    def note(what: str) -> None:
        results["seconds"][what] = round(time.monotonic() - start, 1)
        write(path, results)
        print(f"{results['seconds'][what]:7.1f} s  {what}", flush=True)

    results["matrix"] = matrix_rate(device, dtype, 256 if given.tiny else 8192)
    results["attention_kernel"] = {
        f"{tokens} x {width}": kernel_at_work(tokens, width, dtype, device) for tokens, width in ((9216, 64), (14, 64))
    }
    note("matrix rate")
    family = make_family(MODELS[model], device, dtype)
    note("model")
    runner = Runner(family, device, given.seconds + start, results, note)
    chosen = [case for case in (TINY if given.tiny else CASES) if case.name.startswith(given.cases)]
    for number, case in enumerate(chosen):
        variants = tuple(name for name in case.variants if name in given.variants.split(","))
        if variants:
            runner.run(replace(case, variants=variants))
        if number == 0 and not given.cases:
            _kernels(device, dtype, given.tiny, results, note)
    note("end")


def _kernels(device: str, dtype: torch.dtype, tiny: bool, results: dict[str, Any], note: Callable[[str], None]) -> None:
    for name, measure in KERNELS.items():
        try:
            results[name] = measure(device, dtype, tiny)
        except Exception as error:  # one group that fails must not end the others
            results[name] = {"failed": first_line(error)}
        note(name)


class Runner:
    """Steps are built when they are first asked for, and stay."""

    def __init__(
        self,
        family: SVDFamily,
        device: str,
        deadline: float,
        results: dict[str, Any],
        note: Callable[[str], None],
    ) -> None:
        self.family, self.device, self.deadline, self.results, self.note = family, device, deadline, results, note
        self.steps: dict[str, Step] = {}

    def run(self, case: Case) -> None:
        """A row of the results, or why there is none."""
        title = f"{case.name}: {', '.join(case.variants)}"
        if time.monotonic() > self.deadline - 15:
            self.results["cases"].append({"case": case.name, "variants": list(case.variants), "failed": "no time left"})
            return
        row: dict[str, Any]
        try:
            row = self._measured(case)
        except MEMORY_ERRORS as error:
            row = {"failed": first_line(error)}
        self.results["cases"].append({**asdict(case), "case": case.name, **row})
        self.note(title)
        for name, one in row.get("rows", {}).items():
            print(f"           {name:22}{_words(one)}", flush=True)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _measured(self, case: Case) -> dict[str, Any]:
        clips = make_clips(self.family, case.batch, case.frames, case.height, case.width, DRAWS)
        for name in case.variants:
            if name not in self.steps:
                self.steps[name] = Step(VARIANTS[name], self.family)
        chosen = {name: self.steps[name] for name in case.variants}
        rows = compare(chosen, clips, self.device, rounds=case.rounds, warm_up=WARM_UP, deadline=self.deadline)
        alive = [name for name in case.variants if "failed" not in rows[name]]
        for name in alive[1:]:
            rows[name]["gap"] = largest_gap(rows[name]["losses"], rows[alive[0]]["losses"])
        return {"rows": rows, "same_losses_as": alive[0] if alive else None}


def _words(row: dict[str, Any]) -> str:
    if "failed" in row:
        return str(row["failed"])
    rate = row["flops"] / row["median_ms"] / 1e9 if "flops" in row else float("nan")
    peak = row.get("peak", float("nan")) / 2**30
    gap = row.get("gap", 0.0)
    return f"{row['median_ms']:9.1f} ms {peak:7.2f} GiB {rate:7.1f} TFLOP/s  losses within {gap:.1e}"


if __name__ == "__main__":
    main()
