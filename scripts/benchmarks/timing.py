"""Variants of a step side by side: interleaved, warmed up, with medians, peak memory and counted work."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import peft
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from svdtrain.planning.costs import FLOPS
from svdtrain.planning.memory import LiveStorages

if TYPE_CHECKING:
    from torch import Tensor

    from scripts.benchmarks.variants import Clips, Step

MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError)


class CountedWork(TorchDispatchMode):
    """Floating-point operations of matrix products, convolutions and attention, a multiply-add as two; and how many kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.operations = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run it and add what it costs."""
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        self.operations += 1
        if formula := FLOPS.get(packet):
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Clock:
    """Milliseconds of one call: by a GPU's own events; on a CPU those of this process, whatever else the machine does."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """How long, and what it returned. Nothing else is in flight before and after."""
        if self.device != "cuda":
            start = time.process_time()
            result = work()
            return 1e3 * (time.process_time() - start), result
        torch.cuda.synchronize()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        result = work()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last), result


def compare(
    steps: dict[str, Step], clips: Clips, device: str, *, rounds: int, warm_up: int, deadline: float
) -> dict[str, dict[str, Any]]:
    """A row for each variant: milliseconds, losses, peak, work. One that runs out of memory says so and drops out.

    Losses are those of all steps from the adapter's beginning, warm-up too: equal numbers of steps on equal draws.
    deadline: of time.monotonic; measured rounds end there, three at least.
    """
    clock = Clock(device)
    rows: dict[str, dict[str, Any]] = {}
    for name, step in steps.items():
        step.reset()
        rows[name] = _warmed(step, clips, clock, warm_up)
    alive = [name for name in steps if "failed" not in rows[name]]
    for done in range(rounds):
        if done >= 3 and time.monotonic() > deadline:
            break
        for name in alive:
            if "failed" in rows[name]:
                continue
            try:
                spent, loss = clock(partial(steps[name], clips, warm_up + done))
            except MEMORY_ERRORS as error:
                rows[name]["failed"] = first_line(error)
                continue
            rows[name]["ms"].append(spent)
            rows[name]["losses"].append(loss)
    return {name: _summary(row) for name, row in rows.items()}


def _warmed(step: Step, clips: Clips, clock: Clock, warm_up: int) -> dict[str, Any]:
    """Steps that are not timed: the first counts work, the last takes the peak."""
    row: dict[str, Any] = {"ms": [], "losses": []}
    eager = step.variant.speed == "eager"
    try:
        for number in range(warm_up):
            watched = CountedWork() if eager and number == 0 else None
            spent, loss = clock(partial(_under, watched, step, clips, number))
            row["losses"].append(loss)
            if watched:
                row |= {"flops": watched.flops, "operations": watched.operations}
            if number == 0:
                row["first_step_ms"] = spent
        row |= peak_of(step, clips, clock.device)
    except MEMORY_ERRORS as error:
        row["failed"] = first_line(error)
    except Exception as error:  # a kernel or a compiler that fails is a result too
        row["failed"] = f"{type(error).__name__}: {first_line(error)}"
    if "failed" in row:
        _forget(step, clock.device)
    return row


def _under(mode: TorchDispatchMode | None, step: Step, clips: Clips, number: int) -> Tensor:
    if mode is None:
        return step(clips, number)
    with mode:
        return step(clips, number)


def peak_of(step: Step, clips: Clips, device: str) -> dict[str, int]:
    """Bytes of one more step at its peak, as if its variant were alone: what it keeps, and what it makes. The adapter moves on.

    On a CPU, storages that operations make are counted; on a GPU its allocator does.
    """
    kept = step.resident()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(clips, 0)
        made = torch.cuda.max_memory_allocated() - before
        return {**kept, "made": made, "peak": kept["own"] + kept["beside"] + made}
    if step.variant.speed != "eager":
        return kept
    with LiveStorages() as live:
        step(clips, 0)
    made = live.at_peak.total()
    return {**kept, "made": made, "peak": kept["own"] + kept["beside"] + made}


def _forget(step: Step, device: str) -> None:
    for parameter in step.trained:
        parameter.grad = None
    step.reset()
    if device == "cuda":
        torch.cuda.empty_cache()


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    times = sorted(row.pop("ms"))
    row["losses"] = [float(loss) for loss in row["losses"]]
    if len(times) > 1:
        quarters = statistics.quantiles(times, n=4)
        row |= {"median_ms": statistics.median(times), "least_ms": times[0], "rounds": len(times)}
        row["spread_ms"] = quarters[2] - quarters[0]
    return row


def largest_gap(losses: list[float], others: list[float]) -> float:
    """The largest difference of two variants' losses, step by step, as a share of the loss."""
    return max((abs(a - b) / abs(b) for a, b in zip(losses, others, strict=False)), default=float("inf"))


def first_line(error: BaseException) -> str:
    """Of its message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def machine() -> dict[str, Any]:
    """Where and with what this runs."""
    on_gpu = torch.cuda.is_available()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": " ".join(["python", "-m", "scripts.benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": os.environ.get("COMMIT", commit),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if on_gpu else "no GPU"),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "diffusers": diffusers.__version__,
            "peft": peft.__version__,
        },
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".part")
    waiting.write_text(json.dumps(results, indent=1, default=str) + "\n")
    waiting.replace(path)
