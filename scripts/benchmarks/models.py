"""Stable Video Diffusion in several sizes, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.diffusion.objective import ContinuousVPrediction
from svdtrain.families.svd import SVDFamily


@dataclass(frozen=True)
class Model:
    """Sizes of a Stable Video Diffusion; weights are random."""

    unet: dict[str, Any]
    vae: tuple[int, ...]
    vae_layers: int
    clip: dict[str, Any]


SMALL_CLIP = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
MODELS = {
    "svd": Model(
        {"num_attention_heads": (5, 10, 20, 20)},
        (128, 256, 512, 512),
        2,
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
        | {"patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu"},
    ),
    "four_levels": Model(
        {"block_out_channels": (32, 64, 64, 64), "num_attention_heads": (2, 4, 4, 4), "cross_attention_dim": 64}
        | {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96},
        (32, 32, 64, 64),
        1,
        SMALL_CLIP | {"patch_size": 32, "projection_dim": 64},
    ),
    "tiny": Model(
        {"block_out_channels": (32, 64), "num_attention_heads": (2, 4), "layers_per_block": 1}
        | {"down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal")}
        | {"up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "cross_attention_dim": 32}
        | {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96},
        (32, 32, 32),
        1,
        SMALL_CLIP | {"num_hidden_layers": 1, "patch_size": 32, "projection_dim": 32},
    ),
    "nano": Model(
        {"block_out_channels": (96, 128), "num_attention_heads": (6, 8), "layers_per_block": 1}
        | {"down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal")}
        | {"up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "cross_attention_dim": 64}
        | {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96},
        (64, 64, 128),
        1,
        SMALL_CLIP | {"intermediate_size": 128, "patch_size": 32, "projection_dim": 64},
    ),
}
"""svd: the published sizes. nano: those of the embedded model. four_levels: svd's blocks, and so as many kernels, with few
channels. tiny: for a test."""


def make_family(model: Model, device: str, dtype: torch.dtype, seed: int = 0) -> SVDFamily:
    """Random weights, made where they stay: denoiser in dtype, what is around it in fp32."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    vae: dict[str, Any] = {"block_out_channels": model.vae, "layers_per_block": model.vae_layers}
    vae["down_block_types"] = ("DownEncoderBlock2D",) * len(model.vae)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            unet = UNetSpatioTemporalConditionModel(**model.unet)
        finally:
            torch.set_default_dtype(before)
        encoder = AutoencoderKLTemporalDecoder(**vae)
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**model.clip, image_size=224))
    nn.Module.to(unet, device, dtype)  # the factors of mixing are made on the CPU, in fp32, whatever is asked
    nn.Module.to(encoder, device)
    unet.requires_grad_(False)
    objective = ContinuousVPrediction(LogNormalLevels(1.0, 1.6, 0.002, 700.0))
    levels = LogNormalLevels(-3.0, 0.5, 1e-6, 10.0)
    return SVDFamily(unet, encoder, clip, EulerDiscreteScheduler(), CLIPImageProcessor(), objective, levels)
