"""A loss that means something: the same clips, noise and noise levels every time.

The training loss is mostly the random choice of noise level; this one moves only when the model does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.foundation.seeding import Draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from svdtrain.diffusion.objective import Objective
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.types import ClipBatch, Conditions

SEED = 20_260_101
"""Of all noise here, in every run: losses of different runs can be compared."""
QUANTILES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)


@dataclass(frozen=True)
class PreparedClip:
    """What no adapter changes: encoded once, for all that are compared."""

    draws: Draws
    latents_BTCHW: Tensor
    conditions: Conditions


def levels_of(objective: Objective) -> list[float]:
    """The noise levels at fixed quantiles of those that a family is trained on: from fine detail to layout."""
    return sorted({float(f"{sigma:.3g}") for sigma in objective.levels(torch.tensor(QUANTILES, dtype=torch.float64))})


@torch.no_grad()
def prepare(family: ModelFamily, clip: ClipBatch) -> PreparedClip:
    """Latents and conditions without dropout; one that comes with its encodings is not encoded again."""
    device = next(family.denoiser.parameters()).device
    draws = Draws(SEED, clip.keys_B, device=device)
    encoded = clip.encoded.to(device) if clip.encoded else family.encode_clips(clip)
    return PreparedClip(draws, family.posterior(encoded).mode(), family.encode_conditions(clip, encoded, draws))


@torch.no_grad()
def losses_of(family: ModelFamily, clip: PreparedClip, sigmas: Sequence[float]) -> np.ndarray:
    """float64 [B, S]: each clip's loss at each sigma, its noise keyed by clip and place in the grid."""
    columns: list[Tensor] = []
    for index, sigma in enumerate(sigmas):
        draws = replace(clip.draws, seed=SEED + 1 + index)
        noise_BTCHW = draws.normal("noise", tuple(clip.latents_BTCHW.shape[1:]))
        sigma_B = torch.full((len(clip.latents_BTCHW),), sigma, device=clip.latents_BTCHW.device)
        noisy = family.objective.corrupt(clip.latents_BTCHW, noise_BTCHW, sigma_B)
        error_B = mean_error_per_clip(family.denoise(noisy, clip.conditions), noisy.target_BTCHW)
        columns.append((error_B * noisy.weight_B).double().cpu())
    return torch.stack(columns, dim=1).numpy()


def losses_on_grid(
    family: ModelFamily, clips: Sequence[ClipBatch | PreparedClip], sigmas: Sequence[float]
) -> np.ndarray:
    """float64 [N, S] of clips, as they come or prepared."""
    ready = (one if isinstance(one, PreparedClip) else prepare(family, one) for one in clips)
    return np.concatenate([losses_of(family, one, sigmas) for one in ready])
