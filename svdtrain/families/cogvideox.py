"""CogVideoX: a transformer over text and a video of four times fewer frames (Yang et al. 2024, arXiv 2408.06072).

One file for all six checkpoints: 2b and 5b, 1.5, from text alone or from a picture too. What differs is read from the
checkpoint: the schedule's shift, learned or rotary positions, patches over time, the scale of the picture's latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from transformers import T5EncoderModel, T5Tokenizer

from svdtrain.families.frames import full_precision
from svdtrain.families.loaded import in_full
from svdtrain.families.parts import objective_of
from svdtrain.families.prompted import PromptedModel
from svdtrain.families.protocol import FamilySpec, Size
from svdtrain.families.text import TextConditions, Texts
from svdtrain.families.weights import class_of, load_part
from svdtrain.types import EncodedClips, LatentPosterior

if TYPE_CHECKING:
    from torch import Tensor, nn

    from svdtrain.diffusion.noise_levels import LogNormalLevels
    from svdtrain.families.protocol import Noise, Request
    from svdtrain.families.weights import Weights
    from svdtrain.foundation.seeding import Draws
    from svdtrain.types import ClipBatch, NoisyLatents

_ATTENTION = r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
OFFSET = 2.0
"""What the 1.5 picture checkpoints are told as `ofs`."""
_TARGETS = {
    "attention": {"spatial": _ATTENTION},
    "attention_and_feed_forward": {"spatial": f"{_ATTENTION}|{_FEED_FORWARD}"},
}
SPEC = FamilySpec(
    name="cogvideox",
    architecture="cogvideox-v1",
    pipeline_class="CogVideoXPipeline",
    targets=_TARGETS,
    repeated_blocks=("CogVideoXBlock",),
    needs_image=False,
    needs_text=True,
    frames_alone=False,
)
IMAGE_SPEC = replace(
    SPEC,
    name="cogvideox_image",
    architecture="cogvideox-image-v1",
    pipeline_class="CogVideoXImageToVideoPipeline",
    needs_image=True,
)


@dataclass(frozen=True)
class ImageConditions(TextConditions):
    """The caption, and the picture's latent."""

    image_latents_BCHW: Tensor
    """Sampled from the posterior of the first frame with noise; the sampler's unconditional half has it too."""

    def without_image(self, drop_B: Tensor) -> ImageConditions:
        """Zeros for the picture."""
        keep_B = (~drop_B).to(self.image_latents_BCHW)
        return replace(self, image_latents_BCHW=self.image_latents_BCHW * keep_B[:, None, None, None])


class CogVideoXFamily(PromptedModel):
    """The parts of one checkpoint that is told a text."""

    spec = SPEC
    as_saved = ("text_encoder",)
    pipeline_kind: Any = CogVideoXPipeline

    def __init__(self, *prompted: Any, condition_noise: LogNormalLevels | None) -> None:  # noqa: ANN401
        super().__init__(*prompted)
        self.condition_noise = condition_noise
        self._rotations: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self.vae.enable_slicing()
        self.vae.enable_tiling()

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> CogVideoXFamily:
        """Load a diffusers folder or a cached Hub snapshot; raises ModelError naming what is missing."""
        named = class_of(weights, "scheduler")
        kind = CogVideoXDPMScheduler if named == CogVideoXDPMScheduler.__name__ else CogVideoXDDIMScheduler
        scheduler = load_part(kind, weights, "scheduler")
        denoiser = load_part(CogVideoXTransformer3DModel, weights, "transformer")
        tokenizer, encoder = (
            load_part(T5Tokenizer, weights, "tokenizer"),
            load_part(T5EncoderModel, weights, "text_encoder", torch_dtype="auto"),
        )
        return cls(
            denoiser,
            load_part(AutoencoderKLCogVideoX, weights, "vae"),
            Texts(encoder, tokenizer, denoiser.config.max_text_seq_length),
            scheduler,
            objective_of(scheduler, noise),
            condition_noise=noise.condition,
        )

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE's encoder, and T5."""
        return {"vae": self.vae.encoder, "text_encoder": self.texts.encoder}

    def nearest_size(self, frames: int, height: int, width: int) -> Size:
        """Latents are of one frame and then of four each; patches are square; learned positions know one size."""
        each, told = self.vae.config.temporal_compression_ratio, self.denoiser.config
        frames = max(0, frames - 1) // each * each + 1
        shrinks = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if told.use_learned_positional_embeddings:
            known = Size(told.sample_frames, told.sample_height * shrinks, told.sample_width * shrinks)
            rule = f"{known.frames} frames of {known.height} x {known.width} alone: its positions are learned"
            return replace(known, rule=rule)
        step = shrinks * told.patch_size
        height, width = (max(1, side // step) * step for side in (height, width))
        return Size(frames, height, width, f"{each}k + 1 frames, sides that are multiples of {step}")

    @torch.no_grad()
    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The VAE's posterior of whole clips (it is causal in time), and the caption's tokens."""
        pixels_BCTHW = clips.pixels_BTCHW.to(self.vae.device, torch.float32).transpose(1, 2)
        tokens_BLD = self.texts.encode_captions(clips.captions_B)
        with full_precision(self.vae.device):
            posterior = self.vae.encode(pixels_BCTHW, return_dict=False)[0]
        return EncodedClips(posterior.mean.transpose(1, 2), posterior.logvar.transpose(1, 2), tokens_BLD)

    def posterior(self, encoded: EncodedClips) -> LatentPosterior:
        """Times the VAE's scaling factor; the first latent is repeated in front until patches over time divide them.

        The pipeline lengthens its videos so, and throws those first latents away.
        """
        scale = self.vae.config.scaling_factor
        short = -encoded.mean_BTCHW.shape[1] % (self.denoiser.config.patch_size_t or 1)
        std_BTCHW = torch.exp(0.5 * encoded.logvar_BTCHW)
        return LatentPosterior(encoded.mean_BTCHW * scale, std_BTCHW * scale, first_repeated=short)

    def denoise(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:
        """The transformer's v prediction; steps are whole numbers."""
        input_BTCHW = self.network_input(noisy, conditions).to(self.dtype)
        ofs = input_BTCHW.new_full((1,), OFFSET) if self.denoiser.config.ofs_embed_dim else None
        prediction_BTCHW = self.denoiser(
            input_BTCHW,
            conditions.tokens_BLD.to(self.dtype),
            noisy.timestep_B.long(),
            ofs=ofs,
            image_rotary_emb=self.rotation(input_BTCHW),
            return_dict=False,
        )[0]
        return in_full(prediction_BTCHW)

    def network_input(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:  # noqa: ARG002
        """What the transformer reads of the video."""
        return noisy.input_BTCHW

    def rotation(self, input_BTCHW: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rotary positions as the stock pipeline makes them, kept by shape; None where positions are added instead."""
        if not self.denoiser.config.use_rotary_positional_embeddings:
            return None
        frames, height, width = (input_BTCHW.shape[axis] for axis in (1, 3, 4))
        key = (frames, height, width, input_BTCHW.device)
        if key not in self._rotations:
            pipeline: Any = self.pipeline()
            side = pipeline.vae_scale_factor_spatial
            self._rotations[key] = pipeline._prepare_rotary_positional_embeddings(
                height * side, width * side, frames, input_BTCHW.device
            )
        return self._rotations[key]

    def pipeline(self) -> CogVideoXPipeline | CogVideoXImageToVideoPipeline:
        """The stock pipeline around these modules."""
        parts: Any = (self.texts.tokenizer, self.texts.encoder, self.vae, self.denoiser, self.scheduler)
        return self.pipeline_kind(*parts)

    def answer(self, pipeline: Any, request: Request) -> Any:  # noqa: ANN401
        """The pipeline's call. Of an even number of latents its VAE makes four frames of the first too: three too many."""
        picture = {"image": request.image} if self.spec.needs_image else {}
        tokens = {"prompt_embeds": request.prompt, "negative_prompt_embeds": request.negative_prompt}
        adds_up_in = torch.promote_types(
            self.dtype, torch.float32
        )  # the pipeline takes its latents' precision from these
        told = {name: self.texts.encode([text]).to(self.device, adds_up_in) for name, text in tokens.items()}
        encoder, device = self.texts.encoder, self.texts.encoder.device
        pipeline.register_modules(text_encoder=None)
        encoder.to("cpu")  # T5 is as large as the denoiser, and has said what it has to say
        try:
            result = pipeline(**picture, **told, **self.asked(request))
        finally:
            encoder.to(device)
        result.frames = result.frames[:, -request.frames :]
        return result


class CogVideoXImageFamily(CogVideoXFamily):
    """The parts of one checkpoint that is told a picture besides."""

    spec = IMAGE_SPEC
    pipeline_kind = CogVideoXImageToVideoPipeline

    def idle(self) -> list[nn.Module]:
        """T5 and the VAE's decoder."""
        return [self.texts.encoder, self.vae.decoder]

    @torch.no_grad()
    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> ImageConditions:
        """A draw from the posterior of the first frame with noise, whose level the model is not told."""
        text = super().encode_conditions(clips, encoded, draws)
        image_BCHW = clips.pixels_BTCHW[:, 0].to(self.vae.device, torch.float32)
        assert self.condition_noise is not None
        level_B = self.condition_noise(draws.uniform("condition noise level")).to(image_BCHW)
        noise_BCHW = draws.normal("condition noise", tuple(image_BCHW.shape[1:])).to(image_BCHW)
        noisy_BCHW = image_BCHW + level_B[:, None, None, None] * noise_BCHW
        with full_precision(self.vae.device):
            posterior = self.vae.encode(noisy_BCHW[:, :, None], return_dict=False)[0]
        draw_BCTHW = draws.normal("condition posterior", tuple(posterior.mean.shape[1:])).to(image_BCHW)
        latents_BCHW = (posterior.mean + posterior.std * draw_BCTHW)[:, :, 0]
        scale = self.vae.config.scaling_factor
        scaled_BCHW = latents_BCHW / scale if self.vae.config.invert_scale_latents else latents_BCHW * scale
        return ImageConditions(text.tokens_BLD, text.empty_LD, scaled_BCHW)

    def network_input(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:
        """Channels of the picture beside those of the video: at the first latent, zeros after it."""
        assert isinstance(conditions, ImageConditions)
        image_BTCHW = torch.zeros_like(noisy.input_BTCHW)
        image_BTCHW[:, 0] = conditions.image_latents_BCHW
        return torch.cat([noisy.input_BTCHW, image_BTCHW], dim=2)
