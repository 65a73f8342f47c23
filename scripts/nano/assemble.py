"""Put the nano base together: python scripts/nano/assemble.py PARTS OUT [--unet FOLDER] [--dtype float16].

PARTS holds vae/, image_encoder/ and feature_extractor/; without --unet the UNet is fresh (what nano_pretrain starts from).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

UNET: dict[str, Any] = {
    "block_out_channels": (96, 128),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "num_attention_heads": (6, 8),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "sample_size": 16,
    "num_frames": 8,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def main() -> None:
    """Write a stock diffusers folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unet", type=Path)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel
    unet = unet.from_pretrained(options.unet) if options.unet else unet(**UNET)
    unet.to(dtype).save_pretrained(options.out / "unet")
    vae = AutoencoderKLTemporalDecoder.from_pretrained(options.parts / "vae")
    vae.to(dtype).save_pretrained(options.out / "vae")
    encoder = CLIPVisionModelWithProjection.from_pretrained(options.parts / "image_encoder")
    encoder.to(dtype).save_pretrained(options.out / "image_encoder")
    CLIPImageProcessor.from_pretrained(options.parts / "feature_extractor").save_pretrained(
        options.out / "feature_extractor"
    )
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(options.out / "scheduler")
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    }
    (options.out / "model_index.json").write_text(json.dumps(index, indent=2))
    total = sum(file.stat().st_size for file in options.out.rglob("*.safetensors"))
    print(f"{options.out}: {total / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
