"""Rows 43 to 47: losses and gradients that are not finite, that jump, and versions that are others."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load_file, save_file

from svdtrain.selftest.faults.machine import MINE
from svdtrain.selftest.faults.place import Place, fit, saved
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs
from svdtrain.selftest.faults.settings import UNET
from svdtrain.selftest.faults.videos import video


def _not_a_number(place: Place) -> Runs:
    place.copy("prepared")
    weights = place.copy("model") / UNET
    tensors = load_file(weights)
    tensors["conv_in.bias"] = np.full_like(tensors["conv_in.bias"], np.nan)
    save_file(tensors, weights, {"format": "pt"})
    words = fit("model.source=model", "run_dir=run")
    yield Run(words, 6, ("the loss of clip '", "' at step 0, sigma ", "is nan"), MINE)
    words = fit("model.source=model", "run_dir=skipped", "trainer.max_steps=50", "trainer.on_nonfinite=skip")
    said = ("6 of the last 100 steps were skipped; now the loss of clip '",)
    yield Run(words, 6, said, ("skipped", "skipped/*"))
    if saved(place, 0):
        raise Broken("a checkpoint was saved")


def _overflow(place: Place) -> Runs:
    place.copy("prepared")
    weights = place.copy("model") / UNET
    tensors = load_file(weights)
    tensors["conv_out.weight"] *= 1e6
    save_file(tensors, weights, {"format": "pt"})
    words = fit(
        "model.source=model", "run_dir=run", "trainer.device=cuda", "trainer.precision=16-mixed", "trainer.max_steps=60"
    )
    yield Run(words, 6, ("fp16 overflowed at 21 steps",), MINE, seconds=120)


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device: fp16 is for GPUs"


def _spike(place: Place) -> Runs:
    calm = {f"c{number:02d}.mp4": video(number, picture=flat) for number in range(30)}
    place.tar("data/train-000000.tar", calm | {"wild.mp4": video(0, picture=noise, qp="0")})
    place.tar("data/held_out-000000.tar", {"h.mp4": video(1)})
    levels = ("model.noise_levels.mean=0", "model.noise_levels.std=0.01")
    words = fit("data.source=data", "run_dir=run", "trainer.max_steps=16", "data.batch_size=4", *levels)
    said = ("warning: the loss of clip 'wild@start=", "times the usual there")
    yield Run(words, 0, said, MINE)


def flat(number: int, _time: int, height: int, width: int) -> np.ndarray:
    """Pictures without anything in them."""
    return np.full((height, width, 3), 125 + number % 3, np.uint8)


def noise(_number: int, time: int, height: int, width: int) -> np.ndarray:
    """Pictures of nothing but noise."""
    return np.random.default_rng(time).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255


def _other_versions(place: Place) -> Runs:
    place.copy("prepared")
    manifest = place.copy("run") / "checkpoints" / "step-000002" / "manifest.json"
    told = json.loads(manifest.read_text())
    told["about"]["versions"]["torch"] = "2.10.0"
    manifest.write_text(json.dumps(told))
    words = fit("resume=run", "trainer.max_steps=3")
    yield Run(words, 0, ("torch was 2.10.0, now it is ", "not bit for bit", "step 3/3"), MINE)


ROWS = (
    Fault(43, "a loss that is not finite", _not_a_number),
    Fault(44, "fp16 that overflows again and again", _overflow, _no_gpu),
    Fault(45, "a loss that jumps", _spike),
    Fault(47, "a resume with another torch", _other_versions),
)
