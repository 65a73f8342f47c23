"""Cost against ranks: python -m scripts.benchmarks.ranks. Fits of the embedded model by 1, 2 and 4 processes over gloo.

The same global batch for each. Bytes are counted, and have to be those of a ring over the adapter's gradients; time is told
where ranks share the cores of one machine. Written to scripts/benchmarks/results/ranks.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from scripts.benchmarks.timing import machine, write
from svdtrain.acceleration.flat import ALIGNED
from svdtrain.training.strategy import sent_per_step

RESULTS = Path(__file__).parent / "results" / "ranks.json"
RANKS, CLIPS, STEPS = (1, 2, 4), 4, 4
WORDS = ("config=style_lora", "trainer.device=cpu", f"trainer.max_steps={STEPS}", "optimizer.warmup_steps=0")
LOOKS = (
    "validation.every=1000",
    "validation.clips=1",
    "validation.sample_inputs=0",
    "data.workers=0",
    "model.frames=4",
)


def measure(ranks: int, run: Path) -> dict[str, Any]:
    """A row of the results."""
    size = [f"trainer.devices={ranks}", f"data.batch_size={CLIPS // ranks}", f"run_dir={run}"]
    subprocess.run([sys.executable, "-m", "svdtrain", "fit", *WORDS, *LOOKS, *size], check=True)
    speed = json.loads((run / "run.json").read_text())["speed"]
    weights = load_file(run / "adapter" / "adapter_model.safetensors").values()
    gradients = 4 * sum(-(-weight.size // ALIGNED) * ALIGNED for weight in weights)
    expected = sent_per_step(gradients, ranks)
    assert speed["bytes_sent_per_step"] == expected, (speed["bytes_sent_per_step"], expected)
    return {
        "ranks": ranks,
        "gradient_bytes": gradients,
        "bytes_sent_per_step": speed["bytes_sent_per_step"],
        "seconds_per_step": round(1 / speed["steps_per_second"], 3),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(ranks, Path(folder) / str(ranks)) for ranks in RANKS]
    write(RESULTS, machine() | {"clips_per_step": CLIPS, "steps": STEPS, "rows": rows})
