"""ModelScope and ZeroScope: text to video by a UNet that knows time (Wang et al. 2023, arXiv 2308.06571; diffusers' source)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from svdtrain.diffusion.objective import DiscretePrediction
from svdtrain.diffusion.schedules import signal_shares
from svdtrain.families.frames import encode_frames, scaled_posterior
from svdtrain.families.protocol import FamilySpec, Noise, Request
from svdtrain.families.weights import Weights, load_part
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch, EncodedClips, LatentPosterior, NoisyLatents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from svdtrain.foundation.seeding import Draws

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"ff\.net\.(0\.proj|2)"
_SPATIAL = r".*\.attentions\.\d+\.transformer_blocks\.\d+"
_TEMPORAL = r"(.*\.temp_attentions\.\d+|transformer_in)\.transformer_blocks\.\d+"

SPEC = FamilySpec(
    name="unet3d",
    architecture="modelscope-text-to-video-v1",
    pipeline_class="TextToVideoSDPipeline",
    targets={
        "attention": {"spatial": rf"{_SPATIAL}\.{_ATTENTION}", "temporal": rf"{_TEMPORAL}\.{_ATTENTION}"},
        "attention_and_feed_forward": {
            "spatial": rf"{_SPATIAL}\.({_ATTENTION}|{_FEED_FORWARD})",
            "temporal": rf"{_TEMPORAL}\.({_ATTENTION}|{_FEED_FORWARD})",
        },
    },
    repeated_blocks=("ResnetBlock2D", "TemporalConvLayer", "BasicTransformerBlock"),
    needs_image=False,
    needs_text=True,
    frames_alone=True,
)


@dataclass(frozen=True)
class TextConditions:
    """The caption, and what stands in its place where it is dropped."""

    tokens_BLD: Tensor
    empty_LD: Tensor
    """Of the empty caption: the sampler's unconditional half is not zeros."""

    def dropped(self, drop_B: Tensor) -> TextConditions:
        """The empty caption's tokens."""
        return replace(self, tokens_BLD=torch.where(drop_B[:, None, None], self.empty_LD, self.tokens_BLD))


@dataclass
class UNet3DFamily:
    """The parts of one checkpoint. VAE and text encoder stay frozen and in fp32."""

    denoiser: UNet3DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    objective: DiscretePrediction
    spec: FamilySpec = SPEC
    resting: bool = False

    def __post_init__(self) -> None:
        self.vae.requires_grad_(False).eval()
        self.text_encoder.requires_grad_(False).eval()
        self.empty_LD = self._tokens([""])[0]

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> UNet3DFamily:
        """Load a diffusers folder or a cached Hub snapshot; raises ModelError naming what is missing."""
        scheduler: DDIMScheduler = load_part(DDIMScheduler, weights, "scheduler")
        told: Any = scheduler.config
        shares = signal_shares(
            told.beta_schedule,
            told.num_train_timesteps,
            told.beta_start,
            told.beta_end,
            zero_terminal=told.rescale_betas_zero_snr,
        )
        target = "v" if told.prediction_type == "v_prediction" else "epsilon"
        return cls(
            denoiser=load_part(UNet3DConditionModel, weights, "unet"),
            vae=load_part(AutoencoderKL, weights, "vae"),
            text_encoder=load_part(CLIPTextModel, weights, "text_encoder"),
            tokenizer=load_part(CLIPTokenizer, weights, "tokenizer"),
            scheduler=scheduler,
            objective=DiscretePrediction(shares, target, noise.offset),
        )

    def to(self, device: torch.device | str, denoiser_dtype: torch.dtype) -> None:
        """Move all parts; only the denoiser may leave fp32."""
        parts: list[tuple[nn.Module, torch.dtype]] = [(self.denoiser, denoiser_dtype)]
        parts += [(self.vae, torch.float32), (self.text_encoder, torch.float32)]
        for part, dtype in parts:
            nn.Module.to(part, device=device, dtype=dtype)
        self.empty_LD = self.empty_LD.to(device)

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE's encoder, and the text encoder."""
        vae: Any = self.vae
        return {"vae": vae.encoder, "quant": vae.quant_conv, "text_encoder": self.text_encoder}

    def rest(self) -> None:
        """All but the denoiser."""
        self.resting = True
        self._move_resting("cpu")

    @torch.no_grad()
    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The VAE's posterior of every frame, and the caption's tokens. DataError for a clip without one."""
        silent = next((key for key, caption in zip(clips.keys_B, clips.captions_B, strict=True) if not caption), None)
        if silent is not None:
            message = f"clip '{silent}' has no caption, and this model is told what to show"
            raise DataError(message, "a.txt beside a.mp4, and prepare again")
        pixels_BTCHW = clips.pixels_BTCHW.to(self.vae.device, torch.float32)
        return EncodedClips(*encode_frames(self.vae, pixels_BTCHW), self._tokens(clips.captions_B))

    def posterior(self, encoded: EncodedClips) -> LatentPosterior:
        """The posterior times the VAE's scaling factor."""
        return scaled_posterior(self.vae, encoded)

    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> TextConditions:  # noqa: ARG002
        """The tokens; there is nothing to draw."""
        return TextConditions(encoded.embeddings_BLD, self.empty_LD.to(encoded.embeddings_BLD))

    def denoise(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:
        """The UNet's answer; it wants channels before time."""
        dtype = self.denoiser.dtype
        prediction_BCTHW = self.denoiser(
            noisy.input_BTCHW.transpose(1, 2).to(dtype),
            noisy.timestep_B,
            conditions.tokens_BLD.to(dtype),
            return_dict=False,
        )[0]
        prediction_BTCHW = prediction_BCTHW.transpose(1, 2)
        return prediction_BTCHW if dtype == torch.float64 else prediction_BTCHW.float()

    def pipeline(self) -> TextToVideoSDPipeline:
        """The stock pipeline around these modules."""
        scheduler: Any = self.scheduler
        return TextToVideoSDPipeline(self.vae, self.text_encoder, self.tokenizer, self.denoiser, scheduler)

    @torch.no_grad()
    def sample(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """One video per request by the stock pipeline, one after the other."""
        if self.resting:
            self._move_resting(self.denoiser.device)
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        videos = []
        for request in requests:
            half = self.denoiser.dtype != torch.float32
            with torch.autocast(self.denoiser.device.type, self.denoiser.dtype, enabled=half):
                result: Any = pipeline(
                    request.prompt,
                    height=request.height,
                    width=request.width,
                    num_frames=request.frames,
                    num_inference_steps=request.steps,
                    guidance_scale=request.max_guidance,
                    negative_prompt=request.negative_prompt,
                    generator=torch.Generator().manual_seed(request.seed),
                    output_type="np",
                )
            videos.append((result.frames[0] * 255).round().astype("uint8"))
        if self.resting:
            self.rest()
        return videos

    @torch.no_grad()
    def _tokens(self, captions: Sequence[str]) -> Tensor:
        """[B, L, D] as the pipeline encodes prompts: padded or cut to the encoder's length."""
        ids = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.text_encoder(ids.to(self.text_encoder.device))[0]

    def _move_resting(self, device: torch.device | str) -> None:
        for part in (self.vae, self.text_encoder):
            nn.Module.to(part, device)
