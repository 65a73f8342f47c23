"""Predicted memory of LoRA steps on CogVideoX, beside published figures: python scripts/benchmarks/memory.py.

49 frames of 480 x 720 as latents, rank 64 on the attention matrices, no weights and no GPU. `pure bf16`: base and adapter in
bf16. `mixed`: as svdtrain trains, an fp32 adapter on a bf16 base under CUDA's autocast. Bytes at the peak, in GiB, and the
seconds that each prediction took, go to scripts/benchmarks/results/memory.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from svdtrain.acceleration.recompute import recompute
from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.planning.memory import MemoryPrediction, predict_peak

RESULTS = Path(__file__).parent / "results" / "memory.json"
TARGETS = r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)"
RANK = 64
MODELS: dict[str, dict[str, Any]] = {
    "CogVideoX-2b": {"num_attention_heads": 30, "num_layers": 30},
    "CogVideoX-5b": {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
}
"""Where they differ from the class's defaults."""
SOURCE = (
    "cogvideox-factory / finetrainers legacy README, A100-80, latents precomputed, GB before_training -> before_validation "
    "[read], by performance.md section 2; whether GB or GiB, in which precision, and what else is resident, is not stated"
)


@dataclass(frozen=True)
class Case:
    """A step, and what was published of it."""

    model: str
    recomputed: bool
    batch: int
    published: str


CASES = (
    Case("CogVideoX-2b", False, 1, "13.0 -> 44.3"),
    Case("CogVideoX-2b", True, 1, "13.0 -> 13.0"),
    Case("CogVideoX-2b", True, 4, "22.3"),
    Case("CogVideoX-5b", False, 1, "out of memory on 80 GB"),
    Case("CogVideoX-5b", True, 1, "20.0 -> 20.8"),
    Case("CogVideoX-5b", True, 4, "47.8"),
)


def denoiser_of(case: Case, *, mixed: bool) -> nn.Module:
    """The denoiser as it is trained, on the meta device."""
    with torch.device("meta"):
        denoiser = diffusers.CogVideoXTransformer3DModel(**MODELS[case.model])
    nn.Module.to(denoiser, torch.bfloat16)
    inject(denoiser, AdapterSpec({"spatial": HalfSpec(TARGETS, RANK, RANK, 1e-4)}), seed=0)
    if not mixed:
        nn.Module.to(denoiser, torch.bfloat16)
    if case.recomputed:
        recompute(denoiser, "blocks", ["CogVideoXBlock"])
    return denoiser


def inputs_of(case: Case) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    """13 latent frames of 60 x 90, 226 tokens of text, and angles for 13 x 30 x 45 tokens."""
    inputs: dict[str, Tensor | tuple[Tensor, Tensor]] = {
        "hidden_states": torch.zeros(case.batch, 13, 16, 60, 90, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.zeros(case.batch, 226, 4096, dtype=torch.bfloat16),
        "timestep": torch.zeros(case.batch, dtype=torch.long),
    }
    if "use_rotary_positional_embeddings" in MODELS[case.model]:
        inputs["image_rotary_emb"] = (torch.zeros(13 * 30 * 45, 64), torch.zeros(13 * 30 * 45, 64))
    return inputs


def predict(case: Case, *, mixed: bool) -> dict[str, Any]:
    """A row of the results."""
    start = time.perf_counter()
    denoiser = denoiser_of(case, mixed=mixed)
    predicted = predict_peak(denoiser, lambda: inputs_of(case), autocast=torch.bfloat16 if mixed else None)
    seconds = time.perf_counter() - start
    gib = {part: round(size / 2**30, 2) for part, size in asdict(predicted).items()}
    return {
        **asdict(case),
        "precision": "mixed" if mixed else "pure bf16",
        "GiB": gib | {"peak": round(predicted.peak / 2**30, 2)},
        "peak_GB": round(predicted.peak / 1e9, 2),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Predict, print, note."""
    quiet_packages()
    print(f"published: {SOURCE}")
    parts = [*MemoryPrediction.__dataclass_fields__, "peak"]
    titles = "".join(f"{part:>13}" for part in parts)
    print(f"{'model':14}{'batch':7}{'recomputed':12}{'precision':9}{titles}    (GB)  seconds  published GB")
    rows: list[dict[str, Any]] = []
    for mixed in (False, True):
        for case in CASES:
            row = predict(case, mixed=mixed)
            rows.append(row)
            sizes = "".join(f"{row['GiB'][part]:13.2f}" for part in parts)
            print(
                f"{case.model:14}{case.batch:<7}{'blocks' if case.recomputed else 'nothing':12}{row['precision']:9}{sizes}"
                f"{row['peak_GB']:8.1f}{row['seconds']:9.1f}  {case.published}"
            )
    about = {
        "command": "python scripts/benchmarks/memory.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "settings": {"frames": 49, "height": 480, "width": 720, "rank": RANK, "targets": TARGETS, "optimizer": "AdamW"},
        "attention": "a fused kernel: query, key, value, output and one fp32 number a row are kept, no L x L matrix",
        "left_out": "CUDA context, workspaces within kernels, rounding and fragments of the allocator, VAE, text encoder",
        "published_source": SOURCE,
    }
    RESULTS.write_text(json.dumps(about | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
