"""A run folder as a fit of 2,000 steps leaves it, planted in a moment, with an evaluation of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from svdtrain.foundation.json_lines import JsonLines
from svdtrain.generation.video_files import write_mp4
from tests.commands.adapters import save_run
from tests.tiny_runs import moving_square

RECORD: dict[str, Any] = {
    "name": "ink",
    "state": "done",
    "started": "2026-11-28T08:06:58+0000",
    "overrides": ["config=style_lora", "data.source=/home/someone/secret/clips", "run_dir=/home/someone/run"],
    "versions": {"svdtrain": "0.1.0", "torch": "2.13.0"},
    "rung": "checkpointing",
    "plan": {"peak_bytes": 12 * 2**30, "step_seconds": 2.0},
    "hardware": "NVIDIA H100",
    "use": {"pipeline": "SomePipeline", "image": True, "text": True},
    "step": 2000,
    "speed": {"steps": 1000, "training_seconds": 3600.0, "seconds_per_batch": 3.6, "share_waiting_for_data": 0.01}
    | {"peak_bytes": 11 * 2**30, "energy_joules": 9e5},
    "validation_ratios": {"0": 1.0, "2000": 0.8},
    "verdict": {"kind": "improving", "sentence": "improving: held-out loss is 20% below the base's", "best_step": 2000},
    "dataset": {"train_clips": 96, "held_out_clips": 16, "train_sources": 40, "held_out_sources": 8, "shards": 2}
    | {"bytes": 769400, "fingerprint": "99a14e"},
    "bad_samples": {"damaged": 3},
    "skipped_steps": [7, 9],
    "loss_spikes": 4,
}
CONFIG: dict[str, Any] = {
    "seed": 5,
    "model": {"name": "nano", "id": None, "licence": "Apache-2.0", "width": 64, "height": 64, "frames": 8, "fps": 7.0},
    "data": {"source": "/home/someone/secret/clips", "fps": None, "trigger": "inkwash"},
    "adapter": {"kind": "lora", "rank": 4},
    "trainer": {"max_steps": 2000, "devices": 2, "nodes": 1, "precision": "auto"},
    "validation": {"clips": 8},
}
LEVELS = (0.1, 2, 50)


def plant(folder: Path) -> Path:
    """Metrics of 2,000 steps in two parts, three looks at two inputs, a random adapter."""
    save_run(folder)
    (folder / "run.json").write_text(json.dumps(RECORD))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    write_metrics(folder / "metrics.jsonl", [*range(1500), *range(1001, 2001)])
    for step in (0, 1000, 2000):
        for number in (0, 1):
            video_THWC = moving_square(number + step)
            write_mp4(folder / "samples" / f"step-{step:06d}" / f"input-{number}.mp4", video_THWC, 7)
    return folder


def write_metrics(file: Path, steps: Iterable[int]) -> None:
    """One line a step, and the held-out losses' now and then."""
    lines = JsonLines(file)
    for step in steps:
        lines.append({"step": step, "loss": 1 + math.sin(step), "gradient_norm": 2.0 if step != 777 else 900.0})
        if step % 500 == 0:
            ratio = 1 - step / 10_000
            lines.append({"step": step, "val_ratio": ratio} | {f"val_ratio_{level}": ratio for level in LEVELS})


def plant_evaluation(folder: Path, kind: str = "over-fitting") -> Path:
    """evaluation.json and its videos, as evaluate leaves them."""
    estimate = {"value": 0.75, "low": 0.5, "high": 1.0, "n": 8}
    told: dict[str, Any] = {
        "format": 1,
        "marks": ["clips: it may have seen them"],
        "verdicts": {"adapter": {"kind": kind, "sentence": f"{kind}: 9% above", "best_step": 500}},
        "losses": {"held_out": {"arms": {"base": {}, "adapter": {"ratio": estimate}}}},
        "metrics": {
            "flicker": {
                "unit": "%",
                "good": "as the clips",
                "arms": {"held-out clip": estimate, "base": estimate, "adapter": estimate},
                "against_base": {"adapter": {"change": estimate, "says": "worse"}},
            },
            "motion": {"arms": {"held-out clip": {"value": 8}, "base": {"value": 4}, "adapter": {"value": 2, "n": 8}}},
        },
        "absent": {"motion_response": "it wants motion_buckets"},
        "samples": [{"name": "0003-0", "clip": "clip-3", "seed": 0}],
        "videos": {"held-out clip": "samples/clips", "base": "samples/base", "adapter": "samples/adapter"},
        "missing": {},
    }
    told["verdicts"]["adapter"]["findings"] = ["motion is lost: 60% below"]
    for place in ("clips/0003", "base/0003-0", "adapter/0003-0"):
        write_mp4(folder / "samples" / f"{place}.mp4", moving_square(3), 7)
    (folder / "evaluation.json").write_text(json.dumps(told))
    return folder


def plant_choice(folder: Path) -> Path:
    """choice.json and the link, as choose leaves them."""
    estimate, strength = {"value": 0.75, "low": 0.5, "high": 1.0, "n": 8}, {"spatial": 0.75, "temporal": 0.5}
    told: dict[str, Any] = {
        "format": 1,
        "step": 1500,
        "adapter": "adapter",
        "strength": strength,
        "sentence": "Use step 1,500 at strength 0.75/0.5: its loss is less.",
        "steps": [
            {"step": 1500, "held_out": estimate, "loses_motion": "", "chosen": True},
            {"step": 2000, "held_out": estimate, "loses_motion": "motion is lost: 60% below", "chosen": False},
        ],
        "sweep": [
            {"strength": {"spatial": 1.5, "temporal": 1.5}, "held_out": estimate, "motion": None, "generic": None}
            | {"against": ["copies training frames: very near"], "says": ""},
            {"strength": strength, "held_out": estimate, "motion": estimate, "generic": None}
            | {"motion_to_clips": estimate | {"value": 1.5, "low": 1.2}, "against": [], "says": "chosen"},
        ],
    }
    (folder / "choice.json").write_text(json.dumps(told))
    (folder / "best").symlink_to("adapter")
    return folder
