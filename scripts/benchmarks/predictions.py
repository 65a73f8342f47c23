"""Peaks of the same steps foretold, on a CPU and without weights: python -m scripts.benchmarks.predictions OUT_DIR [--tiny]."""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel

from scripts.benchmarks.gpu_cases import CASES, TINY, Case
from scripts.benchmarks.models import MODELS, make_family
from scripts.benchmarks.timing import write
from scripts.benchmarks.variants import VARIANTS, Variant, make_denoiser
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.planning.memory import predict_peak


def peak(
    base: UNetSpatioTemporalConditionModel, case: Case, variant: Variant, factor: int, dtype: torch.dtype
) -> dict[str, int]:
    """Bytes at the peak, by what they hold; of the denoiser's step alone."""
    latents = (case.batch, case.frames, 8, case.height // factor, case.width // factor)
    context = base.config["cross_attention_dim"]

    def inputs() -> dict[str, Any]:
        return {
            "sample": torch.zeros(latents, dtype=dtype),
            "timestep": torch.zeros(case.batch),
            "encoder_hidden_states": torch.zeros(case.batch, 1, context, dtype=dtype),
            "added_time_ids": torch.zeros(case.batch, 3),
        }

    autocast = None if variant.ours or dtype == torch.float32 else dtype
    predicted = predict_peak(make_denoiser(base, variant), inputs, autocast=autocast)
    return {**asdict(predicted), "peak": predicted.peak}


def predict(case: Case, name: str, *, tiny: bool) -> dict[str, Any]:
    """A row."""
    quiet_packages()
    torch.set_num_threads(1)
    start = time.perf_counter()
    model, dtype = (MODELS["tiny"], torch.float32) if tiny else (MODELS["svd"], torch.bfloat16)
    base = make_family(model, "meta", dtype).denoiser
    row = peak(base, case, VARIANTS[name], 2 ** (len(model.vae) - 1), dtype)
    return {"case": case.name, "variant": name, "seconds": round(time.perf_counter() - start, 1), **row}


def main() -> None:
    """All eager variants that are measured, some at a time; written one by one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    wanted = {
        (case.name, name): case
        for case in (TINY if given.tiny else CASES)
        for name in case.variants
        if not VARIANTS[name].in_loop and VARIANTS[name].speed == "eager"
    }
    workers = max(1, min(6, (os.cpu_count() or 1) - 4))
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        tasks = [pool.submit(predict, case, name, tiny=given.tiny) for (_, name), case in wanted.items()]
        for task in as_completed(tasks):
            rows.append(row := task.result())
            write(given.out / "predictions.json", {"predictions": rows})
            print(f"{row['case']:28}{row['variant']:22}{row['peak'] / 2**30:8.3f} GiB {row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
