"""Frames through an image VAE: what all families share whose VAE knows no time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from svdtrain.types import LatentPosterior

if TYPE_CHECKING:
    from torch import Tensor, nn

    from svdtrain.types import EncodedClips

AT_ONCE = 2**20
"""Pixels that are encoded together."""


def encode_frames(vae: Any, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Mean and log-variance of the VAE's posterior of every frame, [B, T, C, H, W] each, in the VAE's own scale and in fp32."""
    frames_NCHW = pixels_BTCHW.flatten(0, 1)
    at_once = max(1, AT_ONCE // (frames_NCHW.shape[-1] * frames_NCHW.shape[-2]))
    with full_precision(pixels_BTCHW.device):
        posteriors = [vae.encode(part, return_dict=False)[0] for part in frames_NCHW.split(at_once)]
    mean_NCHW = torch.cat([p.mean for p in posteriors])
    logvar_NCHW = torch.cat([p.logvar for p in posteriors])
    shape = (*pixels_BTCHW.shape[:2], *mean_NCHW.shape[1:])
    return mean_NCHW.view(shape), logvar_NCHW.view(shape)


def scaled_posterior(vae: Any, encoded: EncodedClips) -> LatentPosterior:  # noqa: ANN401
    """The posterior times the VAE's scaling factor."""
    scale = vae.config["scaling_factor"]
    return LatentPosterior(encoded.mean_BTCHW * scale, torch.exp(0.5 * encoded.logvar_BTCHW) * scale)


def image_encoder_of(vae: Any) -> dict[str, nn.Module]:  # noqa: ANN401
    """What of an image VAE encodes."""
    return {"vae": vae.encoder, "quant": vae.quant_conv}


def full_precision(device: torch.device) -> torch.autocast:
    """Without autocast: VAEs overflow in fp16, and encoders are kept in fp32."""
    return torch.autocast(device.type, enabled=False)
