"""Every family's real network, on the meta device."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import nn

from svdtrain.adapters.targets import half_of
from svdtrain.families.protocol import ModelFamily
from svdtrain.families.registry import spec_of
from svdtrain.foundation.seeding import Draws
from svdtrain.types import NoisyLatents
from tests.families.cases import CASES, Case, batch_of

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_the_real_network_has_the_designs_numbers(case: Case) -> None:
    """design/svd_math.md 3.1, 3.2, on the meta device."""
    with torch.device("meta"):
        denoiser = case.full.make()
    count = sum(p.numel() for p in denoiser.parameters())
    assert count / 1e6 == pytest.approx(case.full.millions, rel=1e-4)
    linears = {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    targets = spec_of(case.family).targets["attention"]
    assert targets.keys() == case.full.lora_modules.keys()
    for half, pattern in targets.items():
        found = [name for name in linears if re.fullmatch(pattern, name)]
        assert {half_of(name) for name in found} == {half}
        assert len(found) == case.full.lora_modules[half]
        size = 16 * sum(linears[name].in_features + linears[name].out_features for name in found)
        assert size / 1e6 == pytest.approx(case.full.lora_millions[half], abs=1e-3)


@each
def test_the_real_network_takes_what_it_is_told(case: Case, family: ModelFamily) -> None:
    """A forward pass of the real configuration on the meta device, through the family's own call."""
    with torch.device("meta"):
        family.denoiser = case.full.make().to("meta")
    batch = batch_of(case, "a cat")
    conditions: Any = family.encode_conditions(batch, family.encode_clips(batch), Draws(0, (0,)))
    frames, channels, height, width = case.full.latents
    real = {
        "tokens_BLD": case.full.tokens,
        "image_latents_BCHW": (channels, height, width),
        "image_embeddings_BLD": (1, 1024),
    }
    shapes = {f.name: real.get(f.name, tuple(getattr(conditions, f.name).shape[1:])) for f in fields(conditions)}
    conditions = replace(conditions, **{n: torch.empty(1, *shape, device="meta") for n, shape in shapes.items()})
    latents = torch.empty(1, frames, channels, height, width, device="meta")
    noisy = NoisyLatents(latents, torch.zeros(1, device="meta"), latents, torch.ones(1), torch.ones(1))
    with torch.no_grad():
        assert family.denoise(noisy, conditions).shape == latents.shape
