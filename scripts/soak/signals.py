"""Every signal to every subset of ranks in every phase, and to one process alone: 93 runs, and how each ended.

    PYTHONPATH=. python scripts/soak/signals.py [OUT.json]

Takes a quarter of an hour on two idle cores. A fault is told with the last words of the run; the exit code is then 1.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import save_tiny_dataset
from tests.training.signals import CASES, Case, stop

HERE = Path(__file__).resolve().parent


def main(out: Path) -> int:
    """Run them two at a time; print and write."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, dataset = save_tiny_svd(place / "model"), save_tiny_dataset(place / "data")

        def ended(case: Case) -> str:
            fault = stop(case, model, dataset, place / str(case).replace(" ", "-"))
            print(f"{case}: {fault or 'as promised'}", flush=True)
            return fault

        with ThreadPoolExecutor(2) as pool:
            faults = list(pool.map(ended, CASES))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "command": "PYTHONPATH=. python scripts/soak/signals.py",
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {platform.system()}, torch {torch.__version__}",
        "seconds": round(time.monotonic() - start),
        "as_promised": sum(not fault for fault in faults),
        "of": len(CASES),
        "cases": {str(case): fault or "as promised" for case, fault in zip(CASES, faults, strict=True)},
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(faults))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "signals.json"))
