"""Discrete schedules against diffusers' own schedulers, and their objectives against the formulas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler

from svdtrain.diffusion.objective import DiscretePrediction, mean_error_per_clip
from svdtrain.diffusion.schedules import noise_levels_of, signal_shares

RANGE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012}
SCHEDULES: list[tuple[str, dict[str, Any], Any]] = [
    ("scaled_linear", {}, DDIMScheduler(beta_schedule="scaled_linear", **RANGE)),
    ("linear", {}, DDIMScheduler(beta_schedule="linear", **RANGE)),
    (
        "squaredcos_cap_v2",
        {"zero_terminal": True},
        DDIMScheduler(beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True),
    ),
    *(
        (
            "scaled_linear",
            {"zero_terminal": True, "shift": shift},
            CogVideoXDDIMScheduler(
                beta_schedule="scaled_linear", snr_shift_scale=shift, rescale_betas_zero_snr=True, **RANGE
            ),
        )
        for shift in (1.0, 3.0)
    ),
]


@pytest.mark.parametrize(("betas", "options", "scheduler"), SCHEDULES)
def test_shares_are_those_of_the_stock_scheduler(betas: Any, options: dict[str, Any], scheduler: Any) -> None:  # noqa: ANN401
    shares = signal_shares(betas, **options)
    assert float((shares - scheduler.alphas_cumprod).abs().max()) < 1e-6
    assert (shares[1:] < shares[:-1]).all()
    assert (float(shares[-1]) == 0) == bool(options.get("zero_terminal"))


@pytest.mark.parametrize(
    ("shift", "first", "middle"),
    [(3.0, 0.99745, 0.0953), (1.0, 0.99915, 0.2410)],  # design/svd_math.md 5.1
)
def test_known_values(shift: float, first: float, middle: float) -> None:
    shares = signal_shares("scaled_linear", shift=shift, zero_terminal=True)
    assert float(shares[0]) == pytest.approx(first, abs=1e-5)
    assert float(shares[500]) == pytest.approx(middle, abs=1e-4)
    plain = signal_shares("scaled_linear")
    assert float(plain[-1].sqrt()) == pytest.approx(0.068, abs=1e-3)
    assert float(noise_levels_of(plain)[-1]) == pytest.approx(14.6, abs=0.05)
    assert float(signal_shares("linear")[-1].sqrt()) == pytest.approx(0.0397, abs=1e-4)


def objective(target: Any) -> DiscretePrediction:  # noqa: ANN401
    return DiscretePrediction(signal_shares("scaled_linear", zero_terminal=target == "v"), target)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(1000, 2, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("target", ["epsilon", "v"])
def test_every_step_is_drawn_evenly_and_found_again(target: str) -> None:
    one = objective(target)
    even = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    noisy = one.corrupt(normal(0), normal(1), one.levels(even))
    assert torch.equal(noisy.timestep_B, torch.arange(1000).float())
    assert torch.equal(one.corrupt(normal(0), normal(1), noisy.sigma_B).timestep_B, noisy.timestep_B)


@pytest.mark.parametrize("target", ["epsilon", "v"])
def test_the_target_gives_the_clean_latents_back(target: str) -> None:
    one = objective(target)
    even = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    noisy = one.corrupt(normal(0), normal(1), one.levels(even))
    assert one.denoised(noisy, noisy.target_BTCHW) == pytest.approx(normal(0), abs=1e-9)
    assert mean_error_per_clip(noisy.target_BTCHW, noisy.target_BTCHW).max() == 0


def test_plain_error_in_v_is_the_snr_weighted_error_of_clean_latents() -> None:
    """(1 - abar)^-1 |z' - z|^2 = |v' - v|^2 wherever there is noise."""
    one = objective("v")
    even = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    noisy, answer = one.corrupt(normal(0), normal(1), one.levels(even)), normal(2)
    weighted = mean_error_per_clip(one.denoised(noisy, answer), normal(0)) / (1 - one.shares)
    assert weighted == pytest.approx(mean_error_per_clip(answer, noisy.target_BTCHW), rel=1e-9)


def test_levels_beyond_the_schedule_are_its_ends() -> None:
    one = objective("v")
    sigma = torch.tensor([1e-9, float("inf")])
    noisy = one.corrupt(normal(0)[:2], normal(1)[:2], sigma)
    assert noisy.timestep_B.tolist() == [0, 999]
    assert torch.equal(noisy.target_BTCHW[1], -normal(0)[1])  # no signal is left: v is minus the latents
