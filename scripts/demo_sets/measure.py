"""Does a demo adapter do what its set teaches? python scripts/demo_sets/measure.py RUN OUT [--inputs 8] [--seeds 3].

Base and adapter on held-out first frames at the same seeds; OUT/GOAL.json and OUT/GOAL.png (a contact sheet).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from goals import ahead, flow_agreement, growth, lost_likeness, style_distance, texture
from omegaconf import OmegaConf
from world import scene_of

from svdtrain.adapters.pipelines import load_adapter, set_strength
from svdtrain.config.schema import FitConfig
from svdtrain.evaluation.noise_grid import losses_on_grid
from svdtrain.families.build import build_family
from svdtrain.families.protocol import ModelFamily, Request
from svdtrain.generation.sheets import contact_sheet, write_png
from svdtrain.training.build import build_data, requests_from, to_frames


def goal_measures(goal: str, video: np.ndarray, truth: np.ndarray, source: str, look: np.ndarray) -> dict[str, float]:
    """What one generated clip scores; the first entry is the goal's own measure."""
    scene = scene_of(source)
    if goal == "style":
        return {"style distance": style_distance(video, look), "flow agreement": flow_agreement(video, truth)}
    if goal == "subject":
        return {"lost likeness": lost_likeness(video, scene), "flow agreement": flow_agreement(video, truth)}
    if goal == "motion":
        way = ahead(video, scene)
        return {
            "flow agreement": flow_agreement(video, truth),
            "px ahead half-way": float(way[3:5].mean()),
            "px ahead at the end": float(way[-1]),
        }
    picture, shape = growth(video, scene)
    flow = flow_agreement(video, truth)
    return {"flow agreement": flow, "growth of the picture, %/frame": picture, "growth of the shape, %/frame": shape}


def sampled(family: ModelFamily, requests: list[Request], seeds: int) -> list[list[np.ndarray]]:
    """Videos by request and seed."""
    return [family.sample([replace(r, seed=seed) for seed in range(seeds)]) for r in requests]


def sheet_rows(
    truths: list[np.ndarray], videos: dict[str, list[list[np.ndarray]]], inputs: int
) -> list[tuple[str, np.ndarray]]:
    """Held-out clip, base and adapter of each input, at the first seed."""
    rows: list[tuple[str, np.ndarray]] = []
    for index, truth in enumerate(truths[:inputs]):
        rows += [("held-out clip", truth)]
        rows += [(label, per_input[index][0]) for label, per_input in videos.items()]
    return rows


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    config = FitConfig.model_validate(OmegaConf.to_container(OmegaConf.load(options.run / "config.yaml")))
    goal = config.name.removesuffix("_lora")
    data = build_data(config)
    held_out = data.held_out(16)
    sources = [clip.source for clip in data.manifest.held_out]
    truths = [to_frames(clip.pixels_BTCHW[0]) for clip in held_out]
    look = np.concatenate([texture(truth) for truth in truths])
    requests = requests_from(config.model, held_out[: options.inputs], config.validation.sampling_steps, seed=0)
    family = build_family(config.model)
    load_adapter(family.denoiser, options.run)
    results, videos, losses = {}, {}, {}
    for label, strength in (("base", 0.0), ("adapter", 1.0)):
        set_strength(family.denoiser, strength)
        losses[label] = losses_on_grid(family, held_out, config.validation.sigmas).mean(0).tolist()
        videos[label] = sampled(family, requests, options.seeds)
        rows = [
            goal_measures(goal, video, truth, source, look)
            for per_seed, truth, source in zip(videos[label], truths, sources, strict=False)
            for video in per_seed
        ]
        results[label] = {key: [row[key] for row in rows] for key in rows[0]}
    rows = [goal_measures(goal, truth, truth, source, look) for truth, source in zip(truths, sources, strict=False)]
    results["held-out clips"] = {key: [row[key] for row in rows] for key in rows[0]}
    ratios = [a / b for a, b in zip(losses["adapter"], losses["base"], strict=True)]
    typed = json.loads((options.run / "run.json").read_text())["overrides"]
    report = {
        "run": config.name,
        "overrides": [line for line in typed if not line.startswith(("config=", "run_dir=", "data.workers="))],
        "inputs": len(requests),
        "seeds": options.seeds,
        "sampling_steps": config.validation.sampling_steps,
        "sigmas": config.validation.sigmas,
        "held_out_clips": len(held_out),
        "loss_base": losses["base"],
        "loss_adapter": losses["adapter"],
        "loss_ratio": float(np.mean(ratios)),
        "loss_ratio_by_sigma": ratios,
        "measures": {
            label: {key: {"mean": float(np.mean(v)), "sd": float(np.std(v))} for key, v in rows.items()}
            for label, rows in results.items()
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{goal}.json").write_text(json.dumps(report, indent=2) + "\n")
    write_png(options.out / f"{goal}.png", contact_sheet(sheet_rows(truths, videos, options.inputs), frame_height=64))
    print(json.dumps({"goal": goal, "loss_ratio": report["loss_ratio"], "measures": report["measures"]}, indent=1))


if __name__ == "__main__":
    main()
