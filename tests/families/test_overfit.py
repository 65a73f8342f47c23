"""Every family learns: eight clips, and both the loss at fixed noise levels and what the stock pipeline then draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.protocol import ModelFamily, Request
from svdtrain.foundation.seeding import Draws
from svdtrain.types import ClipBatch, EncodedClips
from tests.families.cases import CASES, Case, batch_of

CLIPS, RATE = 8, 4e-3
LEVELS = (2.0, 10.0)


def loss_of(family: ModelFamily, batch: ClipBatch, encoded: EncodedClips, draws: Draws, sigma_B: Tensor) -> Tensor:
    z = family.posterior(encoded).mode()
    noisy = family.objective.corrupt(z, draws.normal("noise", tuple(z.shape[1:])), sigma_B)
    conditions = family.encode_conditions(batch, encoded, draws)
    return mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW).mean()


def drawn_latents(case: Case, family: ModelFamily, requests: list[Request]) -> list[Tensor]:
    """What the stock pipeline hands to the VAE: [T, C, H, W] of each video, in the VAE's own scale."""
    vae: Any = family.vae  # type: ignore[attr-defined]
    seen: list[Tensor] = []
    decode = vae.decode
    vae.decode = lambda z, *args, **options: (seen.append(z), decode(z, *args, **options))[1]
    family.sample(requests)
    vae.decode = decode
    if not family.spec.frames_alone:
        return [z[0].transpose(0, 1) for z in seen]
    return list(torch.cat(seen).unflatten(0, (len(requests), case.frames)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_eight_clips_are_learnt(case: Case, tmp_path: Path) -> None:
    family = case.load(case.save(tmp_path))
    batch = batch_of(case, *(f"{letter} cat" for letter in "abcdefgh"))
    side, steps = (16, 75) if family.spec.frames_alone else (32, 200)
    batch = replace(batch, pixels_BTCHW=batch.pixels_BTCHW[..., :side, :side])
    with torch.no_grad():
        encoded = family.encode_clips(batch)
    spread = float(family.posterior(encoded).mode().std())
    vae: Any = family.vae  # type: ignore[attr-defined]
    vae.register_to_config(scaling_factor=vae.config.scaling_factor / spread)
    family.denoiser.requires_grad_(True)
    trained = list(family.denoiser.parameters())
    optimizer = torch.optim.AdamW(trained, lr=RATE)

    def losses() -> list[float]:
        draws = Draws(7, batch.keys_B)
        with torch.no_grad():
            return [float(loss_of(family, batch, encoded, draws, torch.full((CLIPS,), s))) for s in LEVELS]

    def distance() -> float:
        """Of what is drawn to the nearest clip, in standard deviations of the clips."""
        request = replace(case.request(family), height=side, width=side, steps=8, max_guidance=1.0)
        drawn = drawn_latents(case, family, [replace(request, prompt=f"{letter} cat", seed=7) for letter in "abcd"])
        apart = [min(float((one - clip).abs().mean()) for clip in encoded.mean_BTCHW) for one in drawn]
        return sum(apart) / len(apart) / float(encoded.mean_BTCHW.std())

    before, far = losses(), distance()
    for step in range(steps):
        strata = tuple((clip, CLIPS) for clip in range(CLIPS))
        draws = Draws(0, tuple(range(step * CLIPS, (step + 1) * CLIPS)), strata)
        sigma_B = family.objective.levels(draws.stratified("noise level"))
        loss_of(family, batch, encoded, draws, sigma_B).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    after, near = losses(), distance()
    assert sum(after) < 0.5 * sum(before)
    assert near < 0.8 * far
