"""Stable Video Diffusion: image to video. Every tensor as the stock pipeline makes it (arXiv 2311.15127; diffusers' source)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from svdtrain.diffusion.objective import ContinuousVPrediction
from svdtrain.families.frames import encode_frames, full_precision, image_encoder_of, scaled_posterior
from svdtrain.families.loaded import LoadedModel, in_full
from svdtrain.families.parts import normalised, presets
from svdtrain.families.protocol import FamilySpec
from svdtrain.families.stills import lone_frames_are_frames
from svdtrain.families.weights import Weights, load_part
from svdtrain.types import EncodedClips

if TYPE_CHECKING:
    from torch import Tensor, nn

    from svdtrain.diffusion.noise_levels import LogNormalLevels
    from svdtrain.families.protocol import Noise, Request
    from svdtrain.foundation.seeding import Draws
    from svdtrain.types import ClipBatch, LatentPosterior, NoisyLatents

# attn2 attends to one token, its softmax is 1 whatever q and k say: adapters on them would only random-walk.
_ATTENTION = r"(attn1\.(to_q|to_k|to_v|to_out\.0)|attn2\.(to_v|to_out\.0))"
_FEED_FORWARD = r"ff(_in)?\.net\.(0\.proj|2)"
_HALVES = {"spatial": r".*\.transformer_blocks\.\d+", "temporal": r".*\.temporal_transformer_blocks\.\d+"}

SPEC = FamilySpec(
    name="svd",
    architecture="stable-video-diffusion-img2vid-v1",
    pipeline_class="StableVideoDiffusionPipeline",
    targets=presets(_HALVES, _ATTENTION, _FEED_FORWARD),
    repeated_blocks=("SpatioTemporalResBlock", "BasicTransformerBlock", "TemporalBasicTransformerBlock"),
    needs_image=True,
    needs_text=False,
    frames_alone=True,
    embeds_images=True,
    reads_motion=True,
    unheard=r".*\.attn2\.(to_q|to_k)",
)


@dataclass(frozen=True)
class SVDConditions:
    """The image twice (latent and CLIP embedding), and three numbers."""

    image_latents_BCHW: Tensor
    """Posterior mode of the noise-augmented first frame, NOT multiplied by the VAE's scaling factor."""
    image_embeddings_BLD: Tensor
    """CLIP embedding of the clean first frame, L = 1."""
    time_ids_BD: Tensor
    """[fps - 1, motion_bucket_id, noise_aug_strength]; never dropped."""

    def dropped(self, drop_B: Tensor) -> SVDConditions:
        """Zeros for both forms of the image, as in the unconditional half of the sampler."""
        keep_B = (~drop_B).to(self.image_latents_BCHW)
        return replace(
            self,
            image_latents_BCHW=self.image_latents_BCHW * keep_B[:, None, None, None],
            image_embeddings_BLD=self.image_embeddings_BLD * keep_B[:, None, None],
        )

    def without_image(self, drop_B: Tensor) -> SVDConditions:
        """Zeros for the CLIP embedding alone: the image that is left says the layout, not the meaning."""
        keep_B = (~drop_B).to(self.image_embeddings_BLD)
        return replace(self, image_embeddings_BLD=self.image_embeddings_BLD * keep_B[:, None, None])


class SVDFamily(LoadedModel):
    """The parts of one SVD checkpoint."""

    spec = SPEC

    def __init__(
        self,
        denoiser: UNetSpatioTemporalConditionModel,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        scheduler: EulerDiscreteScheduler,
        feature_extractor: CLIPImageProcessor,
        objective: ContinuousVPrediction,
        condition_noise: LogNormalLevels,
    ) -> None:
        self.denoiser, self.vae, self.image_encoder = denoiser, vae, image_encoder
        self.scheduler, self.feature_extractor = scheduler, feature_extractor
        self.objective, self.condition_noise = objective, condition_noise
        lone_frames_are_frames(denoiser)
        self.freeze()

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> SVDFamily:
        """Load a diffusers folder or a cached Hub snapshot; raises ModelError naming what is missing."""
        assert noise.levels is not None
        assert noise.condition is not None
        return cls(
            denoiser=load_part(UNetSpatioTemporalConditionModel, weights, "unet"),
            vae=load_part(AutoencoderKLTemporalDecoder, weights, "vae"),
            image_encoder=load_part(CLIPVisionModelWithProjection, weights, "image_encoder"),
            scheduler=load_part(EulerDiscreteScheduler, weights, "scheduler"),
            feature_extractor=load_part(CLIPImageProcessor, weights, "feature_extractor"),
            objective=ContinuousVPrediction(noise.levels, noise.offset),
            condition_noise=noise.condition,
        )

    def frozen(self) -> dict[str, nn.Module]:
        """VAE and CLIP."""
        return {"vae": self.vae, "image_encoder": self.image_encoder}

    def idle(self) -> list[nn.Module]:
        """CLIP and the VAE's decoder: of Stable Video Diffusion 2.8 GB in fp32."""
        return [self.vae.decoder, self.image_encoder]

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE's encoder, and CLIP."""
        return image_encoder_of(self.vae) | {"image_encoder": self.image_encoder}

    @torch.no_grad()
    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The VAE's posterior of every frame (its encoder is 2-D), and the clean first frame's CLIP embedding."""
        pixels_BTCHW = clips.pixels_BTCHW.to(self.vae.device, torch.float32)
        mean_BTCHW, logvar_BTCHW = encode_frames(self.vae, pixels_BTCHW)
        with full_precision(self.vae.device):
            return EncodedClips(mean_BTCHW, logvar_BTCHW, self.embed_images(pixels_BTCHW[:, 0]))

    def posterior(self, encoded: EncodedClips) -> LatentPosterior:
        """The posterior times the VAE's scaling factor."""
        return scaled_posterior(self.vae, encoded)

    @torch.no_grad()
    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> SVDConditions:
        """Noise-augmented first frame, CLIP embedding of the clean one, and the ids; the noise level per clip."""
        image_BCHW = clips.pixels_BTCHW[:, 0].to(self.vae.device)
        level_B = self.condition_noise(draws.uniform("condition noise level")).to(self.vae.device)
        noise_BCHW = draws.normal("condition noise", tuple(image_BCHW.shape[1:])).to(self.vae.device)
        noisy_BCHW = image_BCHW + level_B[:, None, None, None] * noise_BCHW
        with full_precision(self.vae.device):
            latents_BCHW = self.vae.encode(noisy_BCHW, return_dict=False)[0].mode()
        ids_BD = torch.stack([clips.fps_B.to(level_B) - 1, clips.motion_bucket_B.to(level_B), level_B], dim=1)
        return SVDConditions(latents_BCHW, encoded.embeddings_BLD, ids_BD)

    @torch.no_grad()
    def embed_images(self, image_BCHW: Tensor) -> Tensor:
        """CLIP image embeddings [B, 1, D] of full frames in [-1, 1], resized and normalised as the pipeline does."""
        small_BCHW = (_resize_with_antialiasing(image_BCHW, (224, 224)) + 1.0) / 2.0
        return self.image_encoder(normalised(small_BCHW, self.feature_extractor)).image_embeds[:, None]

    def denoise(self, noisy: NoisyLatents, conditions: SVDConditions) -> Tensor:
        """The UNet's v prediction; the timestep stays fp32 (bf16 would turn sigma 700 into 708)."""
        frames = noisy.input_BTCHW.shape[1]
        image_BTCHW = conditions.image_latents_BCHW[:, None].expand(-1, frames, -1, -1, -1)
        prediction_BTCHW = self.denoiser(
            torch.cat([noisy.input_BTCHW, image_BTCHW], dim=2).to(self.dtype),
            noisy.timestep_B,
            conditions.image_embeddings_BLD.to(self.dtype),
            conditions.time_ids_BD,
            return_dict=False,
        )[0]
        return in_full(prediction_BTCHW)

    def pipeline(self) -> StableVideoDiffusionPipeline:
        """The stock pipeline around these modules."""
        return StableVideoDiffusionPipeline(
            self.vae, self.image_encoder, self.denoiser, self.scheduler, self.feature_extractor
        )

    def answer(self, pipeline: Any, request: Request) -> Any:  # noqa: ANN401
        """The pipeline's call; guidance rises from frame to frame."""
        assert request.image is not None
        return pipeline(
            request.image,
            height=request.height,
            width=request.width,
            num_frames=request.frames,
            num_inference_steps=request.steps,
            fps=request.fps,
            motion_bucket_id=request.motion_bucket_id,
            noise_aug_strength=request.noise_aug_strength,
            min_guidance_scale=request.min_guidance,
            max_guidance_scale=request.max_guidance,
            decode_chunk_size=min(request.frames, 8),
            generator=torch.Generator().manual_seed(request.seed),
            output_type="np",
        )
