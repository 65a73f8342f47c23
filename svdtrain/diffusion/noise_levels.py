"""Noise levels: how much noise a clip gets in training, and in sampling.

Training levels are log-normal (Karras et al. 2022, arXiv 2206.00364, table 1; SVD's means and widths: arXiv 2311.15127, D).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogNormalLevels:
    """sigma = exp(mean + std * Phi^-1(u)), clamped to [minimum, maximum]."""

    mean: float
    std: float
    minimum: float
    maximum: float

    def __call__(self, uniform_B: Tensor) -> Tensor:
        """fp32 sigma [B] from uniform numbers [B] in (0, 1); evenly spread numbers give stratified levels."""
        normal_B = torch.special.ndtri(uniform_B.double())
        return torch.exp(self.mean + self.std * normal_B).clamp(self.minimum, self.maximum).float()


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """fp64 [steps] noise levels of the sampler, from sigma_max down to sigma_min (arXiv 2206.00364, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def zero_prediction_loss(sigma: float, latent_mean_square: float) -> float:
    """The v-loss of a network that always answers 0: (1 + sigma^2 m) / (1 + sigma^2), m = mean(z^2).

    A trained base lies far below it at every sigma; if it does not, its inputs are wrong.
    """
    if math.isinf(sigma):
        return latent_mean_square
    return (1 + sigma**2 * latent_mean_square) / (1 + sigma**2)
