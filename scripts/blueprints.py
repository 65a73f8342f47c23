"""Writes svdtrain/assets/blueprints/MODEL/: the sizes of published models, so that `plan` needs nothing of them.

    PYTHONPATH=. python scripts/blueprints.py

Each is a diffusers folder without weights and vocabularies. What differs from the classes' defaults is from the papers and the
published config.json; tests/planning/test_blueprints.py compares the parameters with what is published.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig, T5Config

FOLDER = Path(__file__).parents[1] / "svdtrain" / "assets" / "blueprints"
FOUR: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
}
PICTURES = partial(diffusers.AutoencoderKL, **FOUR, up_block_types=("UpDecoderBlock2D",) * 4)
FRAMES = partial(diffusers.AutoencoderKLTemporalDecoder, **FOUR)
HUGE: dict[str, Any] = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
CLIP_H = CLIPVisionConfig(**HUGE, num_attention_heads=16, patch_size=14, projection_dim=1024, hidden_act="gelu")
TEXT_H = CLIPTextConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"
)
TEXT_L = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
T5_XXL = T5Config(
    vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
    dtype="bfloat16",
)  # fmt: skip
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
SCALED = partial(diffusers.DDIMScheduler, **BETAS, beta_schedule="scaled_linear")
TO_ZERO: dict[str, Any] = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
COG = partial(
    diffusers.CogVideoXDDIMScheduler, **BETAS, **TO_ZERO, beta_schedule="scaled_linear", timestep_spacing="trailing"
)
COG_VAE: Any = partial(diffusers.AutoencoderKLCogVideoX, invert_scale_latents=False)
FIVE: dict[str, Any] = {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True}
NEWER = FIVE | {"patch_size_t": 2, "sample_height": 300, "sample_width": 300, "sample_frames": 81, "patch_bias": False}
PICTURE_TOO: dict[str, Any] = {"in_channels": 32, "out_channels": 16}


def svd(folder: Path) -> str:
    """Stable Video Diffusion."""
    _sizes(folder / "unet", diffusers.UNetSpatioTemporalConditionModel, num_attention_heads=(5, 10, 20, 20))
    _sizes(folder / "vae", FRAMES)
    _picture_encoder(folder)
    diffusers.EulerDiscreteScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    return "StableVideoDiffusionPipeline"


def modelscope(folder: Path) -> str:
    """ModelScope and ZeroScope."""
    _sizes(folder / "unet", diffusers.UNet3DConditionModel)
    SCALED().save_pretrained(folder / "scheduler")
    _texts(folder, TEXT_H)
    return "TextToVideoSDPipeline"


def animatediff(folder: Path) -> str:
    """Stable Diffusion 1.5 with motion modules."""
    _sizes(folder / "unet", diffusers.UNetMotionModel, cross_attention_dim=768)
    SCALED().save_pretrained(folder / "scheduler")
    _texts(folder, TEXT_L)
    return "AnimateDiffPipeline"


def i2vgen_xl(folder: Path) -> str:
    """I2VGen-XL."""
    _sizes(folder / "unet", diffusers.I2VGenXLUNet, norm_num_groups=32)
    diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", **TO_ZERO).save_pretrained(folder / "scheduler")
    _texts(folder, TEXT_H)
    _picture_encoder(folder)
    return "I2VGenXLPipeline"


def cogvideox(folder: Path, *, shift: float, image: bool = False, vae: Any = COG_VAE, **network: Any) -> str:  # noqa: ANN401
    """CogVideoX."""
    _sizes(folder / "transformer", diffusers.CogVideoXTransformer3DModel, **network)
    _sizes(folder / "vae", vae)
    COG(snr_shift_scale=shift).save_pretrained(folder / "scheduler")
    T5_XXL.save_pretrained(folder / "text_encoder")
    _vocabulary(folder, T5_XXL.vocab_size, network.get("max_text_seq_length", 226))
    return "CogVideoXImageToVideoPipeline" if image else "CogVideoXPipeline"


IMAGE: Any = {**FIVE, **PICTURE_TOO, "use_learned_positional_embeddings": True}
MODELS = {
    **dict.fromkeys(("svd", "svd_xt", "svd_xt_1_1"), svd),
    **dict.fromkeys(("modelscope", "zeroscope"), modelscope),
    "animatediff": animatediff,
    "i2vgen_xl": i2vgen_xl,
    "cogvideox_2b": partial(cogvideox, shift=3.0),
    "cogvideox_5b": partial(cogvideox, shift=1.0, **FIVE),
    "cogvideox_5b_i2v": partial(cogvideox, shift=1.0, image=True, **IMAGE),
    "cogvideox_1_5_5b": partial(cogvideox, shift=1.0, **NEWER),
    "cogvideox_1_5_5b_i2v": partial(cogvideox, shift=1.0, image=True, ofs_embed_dim=512, **NEWER, **PICTURE_TOO),
}


def _sizes(folder: Path, network: Any, **changes: Any) -> None:  # noqa: ANN401
    with torch.device("meta"):
        network(**changes).save_config(folder)


def _picture_encoder(folder: Path) -> None:
    CLIP_H.save_pretrained(folder / "image_encoder")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")


def _texts(folder: Path, config: CLIPTextConfig) -> None:
    _sizes(folder / "vae", PICTURES)
    config.save_pretrained(folder / "text_encoder")
    _vocabulary(folder, config.vocab_size, config.max_position_embeddings)


def _vocabulary(folder: Path, words: int, length: int) -> None:
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "blank.json").write_text(json.dumps({"words": words, "model_max_length": length}) + "\n")


def write(folder: Path) -> None:
    """All of them."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, make in MODELS.items():
        (folder / name).mkdir(parents=True)
        index = json.dumps({"_class_name": make(folder / name)}, indent=2) + "\n"
        (folder / name / "model_index.json").write_text(index)


if __name__ == "__main__":
    write(FOLDER)
