"""A tiny random text-to-image pipeline in the stock diffusers layout, and LoRA files for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextModel, CLIPTokenizer

from tests.tiny_models import SIZE, save_tiny_text


def save_tiny_text_to_image(folder: Path, *, seed: int = 0) -> Path:
    """A random Stable Diffusion with a VAE factor of 2, saved by the stock pipeline itself."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        sample_size=SIZE // 2,
    )
    blocks: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    save_tiny_text(folder)
    scheduler: Any = {"beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False}
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**blocks, layers_per_block=1, sample_size=SIZE),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "unet": unet,
        "scheduler": DDIMScheduler(**scheduler, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def save_tiny_lora(pipeline: Path, file: Path, part: str = "unet") -> Path:
    """A random LoRA over the attention of one part, strong enough to be seen, as diffusers' training scripts save it."""
    kind, modules = {
        "unet": (UNet2DConditionModel, ["to_q", "to_v"]),
        "text_encoder": (CLIPTextModel, ["q_proj", "v_proj"]),
    }[part]
    module: Any = kind.from_pretrained(pipeline / part)
    torch.manual_seed(1)
    module.add_adapter(LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, target_modules=modules))
    layers: Any = {f"{part}_lora_layers": get_peft_model_state_dict(module)}
    StableDiffusionPipeline.save_lora_weights(file.parent, **layers, weight_name=file.name)
    return file
