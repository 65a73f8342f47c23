"""Discrete diffusion schedules: 1000 steps of the share of signal that is left (Ho et al. 2020, arXiv 2006.11239).

With abar_t the product of (1 - beta), a latent at step t is sqrt(abar_t) z + sqrt(1 - abar_t) e, and the noise level is
sigma_t = sqrt((1 - abar_t) / abar_t): infinite where no signal is left.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


def signal_shares(
    betas: Betas,
    steps: int = 1000,
    start: float = 0.00085,
    end: float = 0.012,
    *,
    shift: float = 1.0,
    zero_terminal: bool = False,
) -> Tensor:
    """abar [steps] in fp64, from almost 1 down.

    `shift` s divides the signal-to-noise ratio: abar / (s + (1 - s) abar). `zero_terminal` moves and stretches sqrt(abar) so
    that the last step holds no signal (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
    """
    if betas == "squaredcos_cap_v2":
        time = torch.arange(steps + 1, dtype=torch.float64) / steps
        curve = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    elif betas == "scaled_linear":
        beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    else:
        beta = torch.linspace(start, end, steps, dtype=torch.float64)
    shares = torch.cumprod(1 - beta, 0)
    shares = shares / (shift + (1 - shift) * shares)
    if zero_terminal:
        root = shares.sqrt()
        shares = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return shares


def noise_levels_of(shares: Tensor) -> Tensor:
    """sigma [steps] in fp64, rising; infinite at a share of 0."""
    return ((1 - shares) / shares).sqrt()
