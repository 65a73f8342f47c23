"""Judge the nano base: python scripts/demo_sets/judge_base.py WORLD OUT [--model FOLDER].

Writes OUT/nano.json and OUT/nano.png (8 generated clips under their truths): VAE fidelity by look, held-out loss by noise
level against a network that answers 0, and how speed in generated clips follows motion_bucket_id and fps.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from goals import flow_agreement, mean_speed
from omegaconf import OmegaConf

from svdtrain.config.schema import ModelConfig
from svdtrain.data.datamodule import ClipDataModule
from svdtrain.diffusion.noise_levels import zero_prediction_loss
from svdtrain.evaluation.noise_grid import losses_on_grid
from svdtrain.families.build import build_family
from svdtrain.foundation.files import packaged
from svdtrain.generation.sheets import contact_sheet, write_png
from svdtrain.training.build import requests_from, to_frames
from svdtrain.types import ClipBatch

SIGMAS = [0.05, 0.1, 0.2, 0.5, 0.7, 2.0, 6.0, 10.0, 20.0, 50.0]
BUCKETS = (20, 60, 100, 127, 160, 200, 250)
RATES = (5, 7, 9, 12)
LOOKS = ("style", "subject", "motion", "camera")


@torch.no_grad()
def psnr_and_square(family: Any, clip: ClipBatch) -> tuple[float, float]:  # noqa: ANN401
    """PSNR in dB of a clip (batch of one) through the VAE, and the mean square of its latents."""
    encoded = family.encode_clips(clip)
    mean_TCHW = encoded.mean_BTCHW[0]
    decoded = family.vae.decode(mean_TCHW, num_frames=len(mean_TCHW)).sample.clamp(-1, 1)
    error = float((decoded - clip.pixels_BTCHW[0]).square().mean())
    return 10 * math.log10(4 / error), float(family.posterior(encoded).mean_BTCHW.square().mean())


def data_of(source: str, model: ModelConfig) -> ClipDataModule:
    """A dataset at the model's size, each clip with its own fps and motion bucket."""
    return ClipDataModule(
        source,
        frames=model.frames,
        height=model.height,
        width=model.width,
        fps=None,
        motion_bucket=None,
        batch_size=1,
        workers=0,
        seed=0,
        horizontal_flip=False,
        max_batches=1,
    )


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--inputs", type=int, default=8)
    options = parser.parse_args()
    values = OmegaConf.to_container(OmegaConf.load(packaged("configs") / "model" / "nano.yaml"))
    model = ModelConfig.model_validate(values).model_copy(update={"source": options.model})
    family: Any = build_family(model)
    data = data_of(options.world, model)
    held_out = data.held_out(24)
    looks = {"world": held_out} | {look: data_of(f"demo:{look}", model).held_out(16) for look in LOOKS}
    fidelity = {look: [psnr_and_square(family, clip) for clip in clips] for look, clips in looks.items()}
    losses = losses_on_grid(family, held_out, SIGMAS).mean(0).tolist()
    square = float(np.mean([square for _, square in fidelity["world"]]))
    zero = [zero_prediction_loss(sigma, square) for sigma in SIGMAS]
    requests = requests_from(model, held_out[: options.inputs], model.sampling_steps, seed=0)
    truths = [to_frames(clip.pixels_BTCHW[0]) for clip in held_out[: options.inputs]]
    videos = family.sample(requests)
    rows = [row for truth, video in zip(truths, videos, strict=True) for row in (("clip", truth), ("base", video))]
    options.out.mkdir(parents=True, exist_ok=True)
    write_png(options.out / "nano.png", contact_sheet(rows, frame_height=64))

    def speed(change: dict[str, int]) -> float:
        asked = [replace(request, **{"fps": 7, "motion_bucket_id": 127, **change}) for request in requests]
        return float(np.mean([mean_speed(video) for video in family.sample(asked)]))

    by_bucket = {bucket: speed({"motion_bucket_id": bucket}) for bucket in BUCKETS}
    by_rate = {rate: speed({"fps": rate}) for rate in RATES}
    report = {
        "vae_psnr_db": {look: float(np.mean([psnr for psnr, _ in rows])) for look, rows in fidelity.items()},
        "sigmas": SIGMAS,
        "held_out_loss": losses,
        "zero_prediction_loss": zero,
        "flow_agreement": float(np.mean([flow_agreement(v, t) for v, t in zip(videos, truths, strict=True)])),
        "speed_by_motion_bucket_id": by_bucket,
        "speed_slope_per_100_buckets": 100 * float(np.polyfit(list(by_bucket), list(by_bucket.values()), 1)[0]),
        "speed_by_fps": by_rate,
    }
    (options.out / "nano.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
