"""Tiny random models in the stock diffusers layout, for tests that run the real loaders and pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.families.protocol import Noise
from svdtrain.families.svd import SVDFamily
from svdtrain.families.weights import Weights

FRAMES, SIZE = 3, 32
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def save_tiny_svd(folder: Path, *, seed: int = 0) -> Path:
    """A random SVD with a VAE factor of 2, saved as the pipeline saves itself."""
    torch.manual_seed(seed)
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(2, 4),
        layers_per_block=1,
        cross_attention_dim=32,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        sample_size=SIZE // 2,
        num_frames=FRAMES,
    )
    shape: dict[str, Any] = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    vae = AutoencoderKLTemporalDecoder(**shape, layers_per_block=1, sample_size=SIZE)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    save_tiny_vision(folder)
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableVideoDiffusionPipeline"}))
    return folder


def save_tiny_vision(folder: Path) -> None:
    """A CLIP image encoder of 32 features that looks at 224 x 224, and its processor."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=32,
        projection_dim=32,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    processor = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    processor.save_pretrained(folder / "feature_extractor")


def load_tiny_svd(folder: Path) -> SVDFamily:
    """The folder through the project's own loader."""
    levels = LogNormalLevels(0.7, 1.6, 0.002, 700.0)
    return SVDFamily.load(Weights(str(folder)), Noise(levels, LogNormalLevels(-3.0, 0.5, 1e-6, 10.0)))


def save_tiny_text(folder: Path) -> None:
    """A CLIP text encoder of 32 features, and a tokenizer of 8 tokens at most."""
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab").mkdir(parents=True)
    (folder / "vocab" / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "vocab" / "merges.txt").write_text("#version: 0.2\n")
    files = {"vocab": str(folder / "vocab" / "vocab.json"), "merges": str(folder / "vocab" / "merges.txt")}
    CLIPTokenizer(**files, model_max_length=8).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
