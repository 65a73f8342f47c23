"""What `adapter info` and `adapter check` cost on a large file: python scripts/benchmarks/adapters.py [--runs 5].

An r = 64 adapter of random numbers on the 192 attention matrices of SVD-XT, for ComfyUI in fp16 and for diffusers in fp32.
Median seconds (Python's start included) and peak memory go to scripts/benchmarks/results/adapters.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile
from svdtrain.adapters.layer import Array, lora
from svdtrain.adapters.layout import packaged_layouts
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.families.registry import spec_of

RESULTS = Path(__file__).parent / "results" / "adapters.json"
RANK = 64
WATCHED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small parent: a child's peak counts the memory of the process that forks it."""


def save_files(folder: Path) -> dict[str, Path]:
    """The two files."""
    layout, random = packaged_layouts()["svd"], np.random.default_rng(0)
    patterns = spec_of("svd").targets["attention"].values()
    layers = {
        module: lora(_normal(random, RANK, shape[1]), _normal(random, shape[0], RANK))
        for module, shape in layout.shapes.items()
        if any(re.fullmatch(pattern, module) for pattern in patterns)
    }
    file = AdapterFile(folder, layers, AdapterInfo(), layout=layout)
    kinds = {"comfyui": "fp16", "diffusers": "fp32"}
    return {f"{to} {t}": write_adapter(folder / f"{to}.safetensors", file, to, t) for to, t in kinds.items()}


def _normal(random: np.random.Generator, *shape: int) -> Array:
    return (0.01 * random.standard_normal(shape)).astype(np.float32)


def measure(tool: str, path: Path) -> tuple[float, float]:
    """(seconds, peak MB) of one call."""
    command = [sys.executable, "-m", "svdtrain", "adapter", tool, str(path)]
    done = subprocess.run([sys.executable, "-c", WATCHED, *command], capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) / 1024


def main() -> None:
    """Measure in turns, so that a slow minute meets all alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    rows: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = save_files(Path(folder))
        for _ in range(runs):
            for name, path in files.items():
                for tool in ("info", "check"):
                    rows.setdefault(f"{tool} {name}", []).append(measure(tool, path))
    found = {
        name: {"seconds": round(statistics.median(s for s, _ in row), 2), "peak_MB": round(max(m for _, m in row))}
        for name, row in rows.items()
    }
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    about = {"machine": machine, "date": datetime.date.today().isoformat(), "runs": runs}
    RESULTS.write_text(json.dumps(about | {"results": found}, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
