"""I2VGen-XL: a picture and a sentence to video, v prediction down to no signal at all (Zhang et al. 2023, arXiv 2311.04145)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import _center_crop_wide, _resize_bilinear
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from svdtrain.families.frames import full_precision
from svdtrain.families.loaded import in_full
from svdtrain.families.parts import load_clip_texts, normalised, objective_of
from svdtrain.families.prompted import PromptedModel
from svdtrain.families.protocol import FamilySpec
from svdtrain.families.unet3d import SPEC as SAME_BLOCKS
from svdtrain.families.weights import load_part
from svdtrain.types import LatentPosterior

if TYPE_CHECKING:
    from torch import nn

    from svdtrain.families.protocol import Noise, Request
    from svdtrain.families.weights import Weights
    from svdtrain.foundation.seeding import Draws
    from svdtrain.types import ClipBatch, EncodedClips, NoisyLatents

SPEC = FamilySpec(
    name="i2vgen_xl",
    architecture="i2vgen-xl-v1",
    pipeline_class="I2VGenXLPipeline",
    targets=SAME_BLOCKS.targets,
    repeated_blocks=SAME_BLOCKS.repeated_blocks,
    needs_image=True,
    needs_text=True,
    frames_alone=True,
    embeds_images=True,
)


@dataclass(frozen=True)
class I2VGenXLConditions:
    """The caption, the picture twice (latent and CLIP embedding), and the rate of frames."""

    tokens_BLD: Tensor
    empty_LD: Tensor
    image_embeddings_BLD: Tensor
    """CLIP embedding of the first frame, L = 1."""
    image_latents_BCHW: Tensor
    """Sampled from the first frame's posterior, times the VAE's scaling factor; never dropped."""
    fps_B: Tensor
    """As it is, not less one; never dropped."""

    def dropped(self, drop_B: Tensor) -> I2VGenXLConditions:
        """The empty caption and no embedding: the sampler's unconditional half, which keeps the picture's latent."""
        tokens_BLD = torch.where(drop_B[:, None, None], self.empty_LD, self.tokens_BLD)
        return replace(self.without_image(drop_B), tokens_BLD=tokens_BLD)

    def without_image(self, drop_B: Tensor) -> I2VGenXLConditions:
        """Zeros for the embedding."""
        keep_B = (~drop_B).to(self.image_embeddings_BLD)
        return replace(self, image_embeddings_BLD=self.image_embeddings_BLD * keep_B[:, None, None])


@torch.library.custom_op("svdtrain::small_squares", mutates_args=())
def _small_squares(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Of frames in [-1, 1], in [0, 1], by PIL. An operation of its own: its shape is known where tensors have no content."""
    side = image_BCHW.shape[-1]
    images_BHWC = ((image_BCHW + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    squares = [_center_crop_wide(Image.fromarray(image), (side, side)) for image in images_BHWC]
    small: Any = [_resize_bilinear(square, (width, height)) for square in squares]
    return VaeImageProcessor.numpy_to_pt(VaeImageProcessor.pil_to_numpy(small)).to(image_BCHW.device)


@_small_squares.register_fake
def _(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    return image_BCHW.new_empty(len(image_BCHW), 3, height, width)


class I2VGenXLFamily(PromptedModel):
    """The parts of one checkpoint."""

    spec = SPEC
    image_encoder: CLIPVisionModelWithProjection
    feature_extractor: CLIPImageProcessor

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> I2VGenXLFamily:
        """Load a diffusers folder or a cached Hub snapshot; raises ModelError naming what is missing."""
        scheduler = load_part(DDIMScheduler, weights, "scheduler", clip_sample=False)
        return cls(
            load_part(I2VGenXLUNet, weights, "unet"),
            load_part(AutoencoderKL, weights, "vae"),
            load_clip_texts(weights, layers_left_out=1),
            scheduler,
            objective_of(scheduler, noise),
            image_encoder=load_part(CLIPVisionModelWithProjection, weights, "image_encoder"),
            feature_extractor=load_part(CLIPImageProcessor, weights, "feature_extractor"),
        )

    def __init__(
        self,
        *prompted: Any,  # noqa: ANN401
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: CLIPImageProcessor,
    ) -> None:
        self.image_encoder, self.feature_extractor = image_encoder, feature_extractor
        super().__init__(*prompted)

    def frozen(self) -> dict[str, nn.Module]:
        """VAE and both CLIP encoders."""
        return super().frozen() | {"image_encoder": self.image_encoder}

    def idle(self) -> list[nn.Module]:
        """All but the denoiser."""
        return [self.vae, self.texts.encoder, self.image_encoder]

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE's encoder, and both CLIP encoders."""
        return super().encoders() | {"image_encoder": self.image_encoder}

    @torch.no_grad()
    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The posterior and the tokens and, as one token more, the first frame's embedding."""
        encoded = super().encode_clips(clips)
        image_BLD = self.embed_images(clips.pixels_BTCHW[:, 0].to(encoded.embeddings_BLD))
        return replace(encoded, embeddings_BLD=torch.cat([encoded.embeddings_BLD, image_BLD], dim=1))

    @torch.no_grad()
    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> I2VGenXLConditions:
        """The first frame's latent is a draw of its own, not the target's."""
        clip = self.posterior(encoded)
        first = LatentPosterior(clip.mean_BTCHW[:, :1], clip.std_BTCHW[:, :1])
        noise_BTCHW = draws.normal("condition posterior", tuple(first.mean_BTCHW.shape[1:])).to(first.mean_BTCHW)
        tokens_BLD, image_BLD = encoded.embeddings_BLD[:, :-1], encoded.embeddings_BLD[:, -1:]
        return I2VGenXLConditions(
            tokens_BLD,
            self.texts.empty_LD.to(tokens_BLD),
            image_BLD,
            first.sample(noise_BTCHW)[:, 0],
            clips.fps_B.to(tokens_BLD.device),
        )

    @torch.no_grad()
    def embed_images(self, image_BCHW: Tensor) -> Tensor:
        """CLIP image embeddings [B, 1, D] of frames in [-1, 1], cropped to squares and sized as the pipeline does."""
        size = self.feature_extractor.crop_size
        small_BCHW = _small_squares(image_BCHW, size["height"], size["width"])
        with full_precision(image_BCHW.device):
            return self.image_encoder(normalised(small_BCHW, self.feature_extractor)).image_embeds[:, None]

    def denoise(self, noisy: NoisyLatents, conditions: I2VGenXLConditions) -> Tensor:
        """The UNet's answer. Frames after the first are told their place in the clip where the first has the picture."""
        frames = noisy.input_BTCHW.shape[1]
        first_BCHW = conditions.image_latents_BCHW
        places_T = torch.arange(frames, device=first_BCHW.device) / max(1, frames - 1)
        rest_BTCHW = places_T[1:, None, None, None] * torch.ones_like(first_BCHW)[:, None]
        image_BTCHW = torch.cat([first_BCHW[:, None], rest_BTCHW.to(first_BCHW)], dim=1)
        prediction_BCTHW = self.denoiser(
            noisy.input_BTCHW.transpose(1, 2).to(self.dtype),
            noisy.timestep_B,
            conditions.fps_B,
            image_latents=image_BTCHW.transpose(1, 2).to(self.dtype),
            image_embeddings=conditions.image_embeddings_BLD.to(self.dtype),
            encoder_hidden_states=conditions.tokens_BLD.to(self.dtype),
            return_dict=False,
        )[0]
        return in_full(prediction_BCTHW.transpose(1, 2))

    def pipeline(self) -> I2VGenXLPipeline:
        """The stock pipeline around these modules."""
        parts: Any = (self.image_encoder, self.feature_extractor, self.denoiser, self.scheduler)
        return I2VGenXLPipeline(self.vae, self.texts.encoder, self.texts.tokenizer, *parts)

    def answer(self, pipeline: Any, request: Request) -> Any:  # noqa: ANN401
        """The pipeline's call. It samples the picture's posterior from the global state, which is lent the seed.

        The prompt comes encoded: the pipeline's own encoding asks CLIP for a name that transformers 5 has renamed.
        """
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            return pipeline(
                image=request.image,
                prompt_embeds=self.texts.encode([request.prompt]),
                negative_prompt_embeds=self.texts.encode([request.negative_prompt]),
                target_fps=request.fps,
                decode_chunk_size=1,
                **self.asked(request),
            )
