"""A tiny pipeline, and what the tests of adapters on it share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from svdtrain.adapters.inject import adapter_parameters
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.families.svd import SPEC, SVDFamily
from tests.tiny_models import FRAMES, SIZE, load_tiny_svd

PATTERNS = SPEC.targets["attention_and_feed_forward"]
ADAPTER = AdapterSpec(
    {
        "spatial": HalfSpec(PATTERNS["spatial"], rank=2, alpha=4, learning_rate=1e-3),
        "temporal": HalfSpec(PATTERNS["temporal"], rank=3, alpha=1.5, learning_rate=1e-4),
    }
)


def randomise(family: SVDFamily) -> None:
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in adapter_parameters(family.denoiser).items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)


def arrays(family: SVDFamily) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}


def frames_of(pipeline: Any) -> np.ndarray:  # noqa: ANN401
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    return pipeline(
        image,
        height=SIZE,
        width=SIZE,
        num_frames=FRAMES,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]


def stock(base: Path) -> StableVideoDiffusionPipeline:
    return load_tiny_svd(base).pipeline()
