"""The objective against independent float64 formulas (Karras et al. 2022; SVD paper, eqs. 11-14) and the stock scheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from svdtrain.diffusion.noise_levels import LogNormalLevels, karras_sigmas, zero_prediction_loss
from svdtrain.diffusion.objective import ContinuousVPrediction, mean_error_per_clip
from tests.tiny_models import SCHEDULER

LEVELS = LogNormalLevels(1.0, 1.6, 0.002, 700.0)
OBJECTIVE = ContinuousVPrediction(LEVELS)
SHAPE = (3, 4, 4, 6, 6)


def drawn(sigma: tuple[float, ...] = (0.05, 1.3, 40.0)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    z, noise = (torch.randn(SHAPE, generator=g, dtype=torch.float64) for _ in range(2))
    return z, noise, torch.tensor(sigma, dtype=torch.float64)


def test_sampler_timesteps_are_quarter_log_sigma() -> None:
    scheduler: Any = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(25)
    expected = 0.25 * scheduler.sigmas[:-1].double().log()
    assert (scheduler.timesteps.double() - expected).abs().max() < 1e-7
    assert scheduler.timesteps[0] == pytest.approx(1.6378, abs=1e-4)
    assert scheduler.timesteps[-1] == pytest.approx(-1.5537, abs=1e-4)


def test_sampler_sigmas_are_karras() -> None:
    scheduler: Any = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(25)
    ours = karras_sigmas(25, 0.002, 700.0)
    assert ((scheduler.sigmas[:-1].double() - ours) / ours).abs().max() < 1e-7
    assert float(scheduler.init_noise_sigma) == pytest.approx(math.sqrt(700.0**2 + 1), rel=1e-7)


def test_perfect_prediction_has_no_loss() -> None:
    z, noise, sigma = drawn()
    s = sigma[:, None, None, None, None]
    v = (noise - s * z) / (s**2 + 1).sqrt()
    assert float(mean_error_per_clip(v, OBJECTIVE.corrupt(z, noise, sigma).target_BTCHW).max()) < 1e-30


def test_v_loss_equals_the_weighted_clean_latent_loss() -> None:
    z, noise, sigma = drawn()
    s = sigma[:, None, None, None, None]
    prediction = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    clean = (z + s * noise) / (s**2 + 1) - s / (s**2 + 1).sqrt() * prediction
    weighted = ((sigma**2 + 1) / sigma**2) * (clean - z).square().flatten(1).mean(1)
    noisy = OBJECTIVE.corrupt(z, noise, sigma)
    ours = mean_error_per_clip(prediction, noisy.target_BTCHW) * noisy.weight_B
    assert ((ours - weighted) / weighted).abs().max() < 1e-13
    assert (OBJECTIVE.denoised(noisy, prediction) - clean).abs().max() < 1e-12


def test_scheduler_step_agrees_with_our_preconditioning() -> None:
    scheduler: Any = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(25)
    for index in (0, 12, 24):
        z, noise, _ = drawn()
        sigma = scheduler.sigmas[index].double().expand(3)
        s = float(sigma[0])
        noisy = OBJECTIVE.corrupt(z, noise, sigma)
        prediction = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
        x = z + s * noise
        scheduler._step_index = index
        result = scheduler.step(prediction, scheduler.timesteps[index], x)
        clean = OBJECTIVE.denoised(noisy, prediction)
        assert (result.pred_original_sample - clean).abs().max() / clean.abs().max() < 2e-7
        following = x + (x - clean) / s * (float(scheduler.sigmas[index + 1]) - s)
        assert (result.prev_sample - following).abs().max() / following.abs().max() < 2e-7


@pytest.mark.parametrize("steps", [1, 25])
def test_a_perfect_denoiser_samples_the_clean_latents(steps: int) -> None:
    scheduler: Any = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    z, noise, _ = drawn()
    x = noise * float(scheduler.init_noise_sigma)
    for index, timestep in enumerate(scheduler.timesteps):
        s = float(scheduler.sigmas[index])
        v = ((x - z) / s - s * z) / math.sqrt(s**2 + 1)
        x = scheduler.step(v, timestep, x).prev_sample
    assert (x - z).abs().max() < 1e-6


def test_zero_prediction_has_the_baseline_loss() -> None:
    z, noise, sigma = drawn()
    noisy = OBJECTIVE.corrupt(z, noise, sigma)
    got = mean_error_per_clip(torch.zeros(SHAPE, dtype=torch.float64), noisy.target_BTCHW)
    for index in range(3):
        expected = zero_prediction_loss(float(sigma[index]), float(z[index].square().mean()))
        assert float(got[index]) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("mean", "std", "quantiles"), [(0.7, 1.6, (0.145, 2.01, 28.0)), (1.0, 1.6, (0.196, 2.72, 37.8))]
)
def test_training_levels_have_the_papers_quantiles(mean: float, std: float, quantiles: tuple[float, ...]) -> None:
    got = LogNormalLevels(mean, std, 0.002, 700.0)(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    assert got.tolist() == pytest.approx(quantiles, rel=0.01)


def test_levels_are_clamped() -> None:
    assert LEVELS(torch.tensor([1e-9, 1 - 1e-9])).tolist() == pytest.approx([0.002, 700.0])


def test_v_loss_keeps_its_digits_where_the_clean_latent_form_loses_them() -> None:
    z, noise, sigma = drawn((0.002, 0.002, 0.002))
    s = sigma[:, None, None, None, None]
    prediction = OBJECTIVE.corrupt(z, noise, sigma).target_BTCHW + 0.1
    in_fp32 = OBJECTIVE.corrupt(z.float(), noise.float(), sigma.float())
    assert mean_error_per_clip(prediction.float(), in_fp32.target_BTCHW).tolist() == pytest.approx([0.01] * 3, rel=1e-4)
    half = [t.bfloat16() for t in (z, noise, prediction)]
    clean = (half[0] + s.bfloat16() * half[1]) / (s**2 + 1).bfloat16() - (s / (s**2 + 1).sqrt()).bfloat16() * half[2]
    wrong = ((sigma**2 + 1) / sigma**2) * (clean - half[0]).double().square().flatten(1).mean(1)
    assert float(wrong.min()) > 0.05
