"""What the network is asked to predict, from what input. Loss is plain mean squared error in network space.

SVD: EDM preconditioning with sigma_data = 1 and a v target (arXiv 2311.15127, eqs. 11-14). With
    x = z + sigma e,   c_in = 1/sqrt(sigma^2 + 1),   c_skip = 1/(sigma^2 + 1),   c_out = -sigma/sqrt(sigma^2 + 1),
the weighted loss lambda(sigma) |D - z|^2 with D = c_skip x + c_out F and lambda = (sigma^2 + 1)/sigma^2 equals |F - v|^2 with
    v = (e - sigma z)/sqrt(sigma^2 + 1),
because lambda c_out^2 = 1. The v form is exact where the clean-latent form loses all its digits (sigma = 0.002).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.diffusion.schedules import noise_levels_of
from svdtrain.types import NoisyLatents

Target = Literal["epsilon", "v"]


class Objective(Protocol):
    """How a family corrupts latents, and what its network predicts."""

    @property
    def offset_noise(self) -> float:
        """How strong a noise that is one number for all pixels of a clip's channel is added: lets brightness move."""
        ...

    def levels(self, uniform_B: Tensor) -> Tensor:
        """Training noise levels [B] from uniform numbers [B] in (0, 1)."""
        ...

    def corrupt(self, latents_BTCHW: Tensor, noise_BTCHW: Tensor, sigma_B: Tensor) -> NoisyLatents:
        """Latents with noise of level sigma_B, and the target for it."""
        ...

    def denoised(self, noisy: NoisyLatents, prediction_BTCHW: Tensor) -> Tensor:
        """The clean latents that a prediction stands for."""
        ...


@dataclass(frozen=True)
class ContinuousVPrediction:
    """SVD's objective; levels are continuous and one level serves all frames of a clip."""

    level_distribution: LogNormalLevels
    offset_noise: float = 0.0

    def levels(self, uniform_B: Tensor) -> Tensor:
        """sigma [B], log-normal."""
        return self.level_distribution(uniform_B)

    def corrupt(self, latents_BTCHW: Tensor, noise_BTCHW: Tensor, sigma_B: Tensor) -> NoisyLatents:
        """c_in (z + sigma e), timestep ln(sigma)/4, target v, weight 1; in the dtype of the latents."""
        sigma = sigma_B.to(latents_BTCHW)[:, None, None, None, None]
        c_in = (sigma**2 + 1).rsqrt()
        return NoisyLatents(
            input_BTCHW=c_in * (latents_BTCHW + sigma * noise_BTCHW),
            timestep_B=0.25 * sigma_B.log(),
            target_BTCHW=(noise_BTCHW - sigma * latents_BTCHW) * c_in,
            weight_B=torch.ones_like(sigma_B),
            sigma_B=sigma_B,
        )

    def denoised(self, noisy: NoisyLatents, prediction_BTCHW: Tensor) -> Tensor:
        """D = c_skip x + c_out F, from the network-space input c_in x."""
        sigma = noisy.sigma_B.to(prediction_BTCHW)[:, None, None, None, None]
        return (noisy.input_BTCHW - sigma * prediction_BTCHW) * (sigma**2 + 1).rsqrt()


@dataclass(frozen=True, eq=False)
class DiscretePrediction:
    """Steps of a schedule, drawn evenly; the network answers the noise e (epsilon), or v = sqrt(abar) e - sqrt(1 - abar) z.

    Plain error in v is what is called SNR-weighted error of the clean latents: (1 - abar)^-1 |z' - z|^2 = |v' - v|^2.
    """

    shares: Tensor
    """abar [steps] in fp64, falling: schedules.signal_shares."""
    target: Target
    offset_noise: float = 0.0

    def levels(self, uniform_B: Tensor) -> Tensor:
        """sigma [B], fp64, of step floor(u steps)."""
        sigmas = noise_levels_of(self.shares).to(uniform_B.device)
        return sigmas[(uniform_B * len(sigmas)).long().clamp(0, len(sigmas) - 1)]

    def corrupt(self, latents_BTCHW: Tensor, noise_BTCHW: Tensor, sigma_B: Tensor) -> NoisyLatents:
        """sqrt(abar) z + sqrt(1 - abar) e at the step nearest to sigma; timestep is that step's number."""
        step_B = self._steps(sigma_B)
        shares_B = self.shares.to(sigma_B.device)[step_B]
        signal, spread = (root.to(latents_BTCHW)[:, None, None, None, None] for root in _roots(shares_B))
        noisy_BTCHW = signal * latents_BTCHW + spread * noise_BTCHW
        target_BTCHW = noise_BTCHW if self.target == "epsilon" else signal * noise_BTCHW - spread * latents_BTCHW
        sigma_B = noise_levels_of(shares_B).float()
        return NoisyLatents(noisy_BTCHW, step_B.float(), target_BTCHW, torch.ones_like(sigma_B), sigma_B)

    def denoised(self, noisy: NoisyLatents, prediction_BTCHW: Tensor) -> Tensor:
        """The clean latents; not defined for epsilon where no signal is left."""
        shares_B = self.shares.to(prediction_BTCHW.device)[noisy.timestep_B.long()]
        signal, spread = (root.to(prediction_BTCHW)[:, None, None, None, None] for root in _roots(shares_B))
        if self.target == "v":
            return signal * noisy.input_BTCHW - spread * prediction_BTCHW
        return (noisy.input_BTCHW - spread * prediction_BTCHW) / signal

    def _steps(self, sigma_B: Tensor) -> Tensor:
        """The step whose ln(sigma) is nearest; beyond the ends the first or the last."""
        logs = noise_levels_of(self.shares).log().to(sigma_B.device)
        middles = (logs[1:] + logs[:-1]) / 2
        return torch.bucketize(sigma_B.double().log(), middles, right=True)


def _roots(shares_B: Tensor) -> tuple[Tensor, Tensor]:
    return shares_B.sqrt(), (1 - shares_B).sqrt()


def mean_error_per_clip(prediction_BTCHW: Tensor, target_BTCHW: Tensor) -> Tensor:
    """Mean squared error [B] of each clip, in fp32 or better."""
    if prediction_BTCHW.dtype in (torch.float16, torch.bfloat16):
        prediction_BTCHW = prediction_BTCHW.float()
    return (prediction_BTCHW - target_BTCHW).square().flatten(1).mean(1)
