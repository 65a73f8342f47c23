"""Writes svdtrain/assets/layouts/NAME.json: the weight shapes of published models, so that files can be judged without them.

    PYTHONPATH=. python scripts/layouts.py

NAME is a family's, or a model's where a family has several sizes. What differs from the classes' defaults is from the
published config.json; tests/adapters/test_layouts.py compares the files with the classes, and their sizes with the papers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import diffusers
import torch
from torch import nn

from svdtrain.adapters.layout import Layout, layout_of

COGVIDEOX_5B = partial(
    diffusers.CogVideoXTransformer3DModel,
    num_layers=42,
    num_attention_heads=48,
    use_rotary_positional_embeddings=True,
)
PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    "animatediff": partial(diffusers.UNetMotionModel, cross_attention_dim=768),
    "cogvideox_2b": diffusers.CogVideoXTransformer3DModel,
    "cogvideox_5b": COGVIDEOX_5B,
    "cogvideox_5b_i2v": partial(COGVIDEOX_5B, in_channels=32, use_learned_positional_embeddings=True),
    "i2vgen_xl": diffusers.I2VGenXLUNet,
    "svd": diffusers.UNetSpatioTemporalConditionModel,
    "unet3d": diffusers.UNet3DConditionModel,
}
FOLDER = Path(__file__).parents[1] / "svdtrain" / "assets" / "layouts"


def published(name: str) -> nn.Module:
    """The denoiser at full size, without numbers."""
    with torch.device("meta"):
        return PUBLISHED[name]()


def text_of(layout: Layout) -> str:
    """A layout as JSON, a module a line."""
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(list(shape))}" for name, shape in layout.shapes.items())
    return f'{{\n  "component": "{layout.component}",\n  "shapes": {{\n{rows}\n  }}\n}}\n'


if __name__ == "__main__":
    for name in PUBLISHED:
        (FOLDER / f"{name}.json").write_text(text_of(layout_of(published(name))))
