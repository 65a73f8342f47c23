"""Norms of halves against the changes themselves, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svdtrain.adapters.inject import adapter_layers, layer_parts
from svdtrain.adapters.layer import MAGNITUDE, Layer
from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.adapter_norms import norms_of_halves
from tests.tiny_runs import fit_config


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "loha", "lokr"])
def test_a_halfs_norm_is_that_of_its_changes(model: Path, dataset: Path, kind: str) -> None:
    config = fit_config(model, dataset, f"adapter.kind={kind}", "adapter.spatial.alpha=3")
    module = build.build_module(config, build_family(config.model))
    random, squares = torch.Generator().manual_seed(0), {"spatial": 0.0, "temporal": 0.0}
    assert norms_of_halves(module.denoiser, module.halves) == squares, "an adapter begins as the identity"
    for name, layer in adapter_layers(module.denoiser, "default"):
        parts = layer_parts(layer, "default")
        for part in parts.values():
            part.data.normal_(generator=random)
        plain = {part: value.detach().double().numpy() for part, value in parts.items() if part != MAGNITUDE}
        change = Layer(plain, layer.scaling["default"]).delta()
        squares[module.halves[name]] += float(np.square(change).sum())
    expected = {half: square**0.5 for half, square in squares.items()}
    assert norms_of_halves(module.denoiser, module.halves) == pytest.approx(expected, rel=1e-5)
