"""What saving costs: PYTHONPATH=. python scripts/benchmarks/checkpoints.py.

`run`: the style recipe on the packaged model with its own interval; the share of its training time that goes to saves
(checkpoint and adapter: written, hashed, flushed to the disk) and to asking after signals. `sizes`: one save of a state of so
many MB, against torch.save of the same state, in turns; and its share of 250 steps of one second, the interval of the full-size
models. Written to scripts/benchmarks/results/checkpoints.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from svdtrain.commands import fit
from svdtrain.config import compose, overrides
from svdtrain.config.schema import FitConfig
from svdtrain.training.callbacks.requests import Requests
from svdtrain.training.callbacks.save import SaveCheckpoints
from svdtrain.training.checkpoint import FolderCheckpoint

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"
SIZES_MB, TURNS = (25, 100, 300), 5
INTERVAL_SECONDS = 250.0
WORDS = ["config=style_lora", "validation.sample_inputs=0", "trainer.device=cpu"]


def timed(owner: type, name: str, seconds: dict[str, float]) -> None:
    """Count the seconds of a method."""
    method = getattr(owner, name)

    @wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[owner.__name__] += time.perf_counter() - start

    setattr(owner, name, counted)


def measure_run(place: Path) -> dict[str, float]:
    """A fit as users run it."""
    seconds: dict[str, float] = defaultdict(float)
    for owner in (SaveCheckpoints, Requests):
        timed(owner, "on_train_batch_end", seconds)
    [config] = compose.check(overrides.parse([*WORDS, f"run_dir={place}"], "fit"), FitConfig)
    fit.run(config, WORDS)
    total = json.loads((place / "run.json").read_text())["speed"]["training_seconds"]
    saves = config.trainer.max_steps // config.trainer.save_every
    return {
        "steps": config.trainer.max_steps,
        "saves": saves,
        "training_seconds": total,
        "milliseconds_per_save": round(1000 * seconds["SaveCheckpoints"] / saves, 1),
        "share_saving": round(seconds["SaveCheckpoints"] / (total + seconds["SaveCheckpoints"]), 5),
        "share_asking_after_requests": round(seconds["Requests"] / total, 6),
    }


def measure_size(place: Path, megabytes: int) -> dict[str, float]:
    """Medians of alternating saves."""
    draw = torch.Generator().manual_seed(0)
    state = {"weights": {str(n): torch.randn(250_000, generator=draw) for n in range(megabytes)}}
    ours, plain = [], []
    for turn in range(TURNS):
        start = time.perf_counter()
        FolderCheckpoint().save_checkpoint(state, place / f"step-{turn:06d}")
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.save(state, place / "plain.pt")
        plain.append(time.perf_counter() - start)
        FolderCheckpoint().remove_checkpoint(place / f"step-{turn:06d}")
    return {
        "megabytes": megabytes,
        "seconds": round(statistics.median(ours), 3),
        "torch_save_seconds": round(statistics.median(plain), 3),
        "share_of_interval": round(statistics.median(ours) / INTERVAL_SECONDS, 5),
    }


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # on the disk, not in memory
        run = measure_run(Path(folder) / "run")
        sizes = [measure_size(Path(folder), size) for size in SIZES_MB]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "command": "PYTHONPATH=. python scripts/benchmarks/checkpoints.py",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {platform.system()}; torch {torch.__version__}",
        "run": run,
        "sizes": sizes,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
