"""Tiny random pipelines of the families that read text, saved as the stock pipelines save themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from sentencepiece import sentencepiece_model_pb2
from transformers import T5Config, T5EncoderModel

from tests.tiny_models import SIZE, save_tiny_text, save_tiny_vision

UNET: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "sample_size": SIZE // 2,
}
BLOCKS_3D: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "attention_head_dim": 8,
}
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False}


def _index(folder: Path, pipeline: str) -> Path:
    """model_index.json, by what the parts say of themselves."""
    index: dict[str, Any] = {"_class_name": pipeline}
    files = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
    for file in sorted(path for name in files for path in folder.glob(f"*/{name}")):
        told = json.loads(file.read_text())
        ours = told.get("_class_name")
        theirs = (
            told.get("tokenizer_class") or told.get("image_processor_type") or (told.get("architectures") or [""])[0]
        )
        index[file.parent.name] = ["diffusers", ours] if ours else ["transformers", theirs]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _save_pictures(folder: Path) -> None:
    """A VAE of pictures that shrinks them by 2, and CLIP's text half."""
    blocks: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    diffusers.AutoencoderKL(**blocks, layers_per_block=1, sample_size=SIZE).save_pretrained(folder / "vae")
    save_tiny_text(folder)


def save_tiny_unet3d(folder: Path, *, seed: int = 0) -> Path:
    """ModelScope's kind."""
    torch.manual_seed(seed)
    diffusers.UNet3DConditionModel(**UNET, **BLOCKS_3D).save_pretrained(folder / "unet")
    _save_pictures(folder)
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, **BETAS)
    scheduler.save_pretrained(folder / "scheduler")
    return _index(folder, "TextToVideoSDPipeline")


def save_tiny_i2vgen_xl(folder: Path, *, seed: int = 0) -> Path:
    """I2VGen-XL's kind."""
    torch.manual_seed(seed)
    diffusers.I2VGenXLUNet(**UNET, **BLOCKS_3D).save_pretrained(folder / "unet")
    _save_pictures(folder)
    save_tiny_vision(folder)
    diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        **BETAS,
    ).save_pretrained(folder / "scheduler")
    return _index(folder, "I2VGenXLPipeline")


def save_tiny_pictures(folder: Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 1.5's kind, with its own kind of scheduler."""
    torch.manual_seed(seed)
    diffusers.UNet2DConditionModel(
        **UNET,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
    ).save_pretrained(folder / "unet")
    _save_pictures(folder)
    betas: dict[str, Any] = {name: value for name, value in BETAS.items() if name != "clip_sample"}
    diffusers.PNDMScheduler(
        beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1, **betas
    ).save_pretrained(folder / "scheduler")
    return _index(folder, "StableDiffusionPipeline")


def save_tiny_motion_adapter(folder: Path, *, seed: int = 1) -> Path:
    """Motion modules for the pictures' UNet; they know 16 frames."""
    torch.manual_seed(seed)
    diffusers.MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=16,
    ).save_pretrained(folder)
    return folder


def save_tiny_animatediff(folder: Path, *, seed: int = 0) -> Path:
    """A whole AnimateDiff pipeline."""
    pictures = save_tiny_pictures(folder / "pictures", seed=seed)
    unet = diffusers.UNet2DConditionModel.from_pretrained(pictures / "unet")
    adapter = diffusers.MotionAdapter.from_pretrained(save_tiny_motion_adapter(folder / "motion"))
    diffusers.UNetMotionModel.from_unet2d(unet, adapter).save_pretrained(folder / "unet")  # type: ignore[arg-type]
    for part in ("vae", "text_encoder", "tokenizer"):
        (pictures / part).rename(folder / part)
    diffusers.DDIMScheduler(
        beta_schedule="linear", steps_offset=1, timestep_spacing="linspace", **BETAS
    ).save_pretrained(folder / "scheduler")
    return _index(folder, "AnimateDiffPipeline")


def save_tiny_cogvideox(
    folder: Path,
    *,
    seed: int = 0,
    image: bool = False,
    newer: bool = False,
    **network: Any,  # noqa: ANN401
) -> Path:
    """CogVideoX's kind: `image`, told a picture too; `newer`, of 1.5: patches over time and rotary positions.

    Latents have 4 channels and a quarter of the pictures' sides.
    """
    torch.manual_seed(seed)
    layers: dict[str, Any] = {"num_layers": 2}
    options: dict[str, Any] = {"patch_size_t": 2, "use_rotary_positional_embeddings": True} if newer else {}
    diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8 if image else 4,
        out_channels=4,
        time_embed_dim=8,
        ofs_embed_dim=8 if newer and image else None,
        text_embed_dim=32,
        sample_width=SIZE // 4,
        sample_height=SIZE // 4,
        sample_frames=9,
        max_text_seq_length=8,
        **layers | options | network,
    ).save_pretrained(folder / "transformer")
    blocks: dict[str, Any] = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("CogVideoXDownBlock3D",) * 3,
        "up_block_types": ("CogVideoXUpBlock3D",) * 3,
    }
    vae: Any = diffusers.AutoencoderKLCogVideoX(
        **blocks,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=2 * SIZE,
        sample_width=2 * SIZE,
        scaling_factor=0.7 if newer else 1.15258426,
        invert_scale_latents=newer and image,
    )
    with torch.no_grad():  # as of a trained VAE, the posterior is narrow
        vae.encoder.conv_out.conv.bias[4:] -= 8
    vae.save_pretrained(folder / "vae")
    _save_t5(folder)
    betas: Any = BETAS | {"set_alpha_to_one": True, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
    diffusers.CogVideoXDDIMScheduler(
        **betas,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0 if newer else 3.0,
    ).save_pretrained(folder / "scheduler")
    pipeline = "CogVideoXImageToVideoPipeline" if image else "CogVideoXPipeline"
    return _index(folder, pipeline)


def _save_t5(folder: Path) -> None:
    """T5 of 32 features, and a sentencepiece model of single letters."""
    protocol: Any = sentencepiece_model_pb2
    model = protocol.ModelProto()
    letters = ["\u2581", *(chr(code) for code in range(97, 123))]
    for piece, kind in [("<pad>", 3), ("</s>", 3), ("<unk>", 2), *((letter, 1) for letter in letters)]:
        model.pieces.add(piece=piece, score=-1.0 - len(model.pieces), type=kind)
    model.trainer_spec.CopyFrom(protocol.TrainerSpec(model_type="UNIGRAM", unk_id=2, eos_id=1, pad_id=0, bos_id=-1))
    model.normalizer_spec.CopyFrom(protocol.NormalizerSpec(name="identity"))
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer" / "spiece.model").write_bytes(model.SerializeToString())
    told = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 8}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(told))
    config = T5Config(
        vocab_size=len(model.pieces),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
