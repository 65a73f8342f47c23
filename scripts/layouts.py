"""Writes svdtrain/assets/layouts/FAMILY.json: the weight shapes of published models, so that files can be judged without them.

    PYTHONPATH=. python scripts/layouts.py

The classes' defaults are the published configurations; tests/adapters/test_names.py compares the files with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from torch import nn

from svdtrain.adapters.layout import Layout, layout_of

PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    "svd": diffusers.UNetSpatioTemporalConditionModel,
    "unet3d": diffusers.UNet3DConditionModel,
}
FOLDER = Path(__file__).parents[1] / "svdtrain" / "assets" / "layouts"


def published(family: str) -> nn.Module:
    """The denoiser at full size, without numbers."""
    with torch.device("meta"):
        return PUBLISHED[family]()


def text_of(layout: Layout) -> str:
    """A layout as JSON, a module a line."""
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(list(shape))}" for name, shape in layout.shapes.items())
    return f'{{\n  "component": "{layout.component}",\n  "shapes": {{\n{rows}\n  }}\n}}\n'


if __name__ == "__main__":
    for name in PUBLISHED:
        (FOLDER / f"{name}.json").write_text(text_of(layout_of(published(name))))
