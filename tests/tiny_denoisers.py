"""Tiny random denoisers of every kind that adapters are used on, each with inputs for a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"


@dataclass(frozen=True)
class Denoiser:
    """A kind of denoiser."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]
    spatial: str
    temporal: str
    comfyui: bool = False


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


UNET: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}


def svd() -> nn.Module:
    return diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(2, 4),
        layers_per_block=1,
        cross_attention_dim=32,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        sample_size=8,
        num_frames=3,
    )


def unet3d() -> nn.Module:
    return diffusers.UNet3DConditionModel(
        **UNET,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        sample_size=8,
    )


def i2vgen_xl() -> nn.Module:
    return diffusers.I2VGenXLUNet(
        **UNET,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        sample_size=8,
    )


def animatediff() -> nn.Module:
    return diffusers.UNetMotionModel(
        **UNET,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        cross_attention_dim=32,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
        sample_size=8,
    )


def cogvideox() -> nn.Module:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        max_text_seq_length=4,
    )


DENOISERS = {
    "svd": Denoiser(
        svd,
        lambda: {
            "sample": noise(1, 3, 8, 8, 8),
            "timestep": torch.tensor([0.3]),
            "encoder_hidden_states": noise(1, 1, 32),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
        },
        rf".*\.transformer_blocks\.\d+\.{ATTENTION}",
        rf".*\.temporal_transformer_blocks\.\d+\.{ATTENTION}",
        comfyui=True,
    ),
    "unet3d": Denoiser(
        unet3d,
        lambda: {"sample": noise(1, 4, 3, 8, 8), "timestep": 5, "encoder_hidden_states": noise(1, 4, 32)},
        rf".*\.attentions\.\d+\.transformer_blocks\.\d+\.{ATTENTION}",
        rf"(.*\.temp_attentions\.\d+|transformer_in)\.transformer_blocks\.\d+\.{ATTENTION}",
    ),
    "i2vgen_xl": Denoiser(
        i2vgen_xl,
        lambda: {
            "sample": noise(1, 4, 3, 8, 8),
            "timestep": 5,
            "fps": torch.tensor([16]),
            "image_latents": noise(1, 4, 3, 8, 8),
            "image_embeddings": noise(1, 1, 32),
            "encoder_hidden_states": noise(1, 4, 32),
        },
        rf".*\.attentions\.\d+\.transformer_blocks\.\d+\.{ATTENTION}",
        rf"(.*\.temp_attentions\.\d+|transformer_in)\.transformer_blocks\.\d+\.{ATTENTION}",
    ),
    "animatediff": Denoiser(
        animatediff,
        lambda: {"sample": noise(1, 4, 3, 8, 8), "timestep": 5, "encoder_hidden_states": noise(3, 4, 32)},
        rf".*\.attentions\.\d+\.transformer_blocks\.\d+\.{ATTENTION}",
        rf".*motion_modules\.\d+\.transformer_blocks\.\d+\.{ATTENTION}",
    ),
    "cogvideox": Denoiser(
        cogvideox,
        lambda: {
            "hidden_states": noise(1, 3, 4, 8, 8),
            "encoder_hidden_states": noise(1, 4, 16),
            "timestep": torch.tensor([5]),
        },
        r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)",
        "",
    ),
}
DENOISERS["motion_modules"] = replace(DENOISERS["animatediff"], spatial="")
"""What a MotionLoRA sits on."""


def make(name: str) -> nn.Module:
    """The denoiser of a name, the same every time."""
    torch.manual_seed(0)
    return DENOISERS[name].make().eval()


def output_of(denoiser: nn.Module, name: str) -> Tensor:
    """Its answer to its inputs."""
    dtype = next(denoiser.parameters()).dtype
    inputs = {
        key: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in DENOISERS[name].inputs().items()
    }
    return denoiser(**inputs, return_dict=False)[0]
