"""AnimateDiff: a Stable Diffusion 1.5 checkpoint that motion modules make move (Guo et al. 2023, arXiv 2307.04725)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)

from svdtrain.families.loaded import in_full
from svdtrain.families.parts import load_clip_texts, objective_of, presets
from svdtrain.families.prompted import PromptedModel
from svdtrain.families.protocol import FamilySpec, Size
from svdtrain.families.weights import load_part, pipeline_of
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from svdtrain.families.protocol import Noise
    from svdtrain.families.text import TextConditions
    from svdtrain.families.weights import Weights
    from svdtrain.types import NoisyLatents

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"ff\.net\.(0\.proj|2)"
_SPATIAL = r".*\.attentions\.\d+\.transformer_blocks\.\d+"
_TEMPORAL = r".*\.motion_modules\.\d+\.transformer_blocks\.\d+"

SPEC = FamilySpec(
    name="animatediff",
    architecture="animatediff-v1",
    pipeline_class="AnimateDiffPipeline",
    also_loads=("StableDiffusionPipeline",),
    targets=presets({"spatial": _SPATIAL, "temporal": _TEMPORAL}, _ATTENTION, _FEED_FORWARD),
    repeated_blocks=("ResnetBlock2D", "BasicTransformerBlock"),
    needs_image=False,
    needs_text=True,
    frames_alone=True,
)


class AnimateDiffFamily(PromptedModel):
    """The parts of one picture model, with motion modules in its UNet."""

    spec = SPEC

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> AnimateDiffFamily:
        """A saved AnimateDiffPipeline, or a picture model beside model.motion_adapter; raises ModelError.

        Motion modules were trained with linear betas. The picture model's own scheduler has others: it is not used.
        """
        scheduler = load_part(
            DDIMScheduler,
            weights,
            "scheduler",
            beta_schedule="linear",
            clip_sample=False,
            steps_offset=1,
            timestep_spacing="linspace",
        )
        if pipeline_of(weights) == SPEC.pipeline_class:
            unet = load_part(UNetMotionModel, weights, "unet")
        else:
            if "motion_adapter" not in weights.parts:
                message = f"model.motion_adapter: is not set, and {weights} is a picture model, which does not move"
                raise ModelError(message, "model.motion_adapter=FOLDER, or a Hub id as ID@COMMIT")
            pictures = load_part(UNet2DConditionModel, weights, "unet")
            motion = load_part(MotionAdapter, weights, "motion_adapter")
            with pictures.device:  # the meta device, where there are no weights
                unet = UNetMotionModel.from_unet2d(pictures, motion)
        vae = load_part(AutoencoderKL, weights, "vae")
        return cls(unet, vae, load_clip_texts(weights), scheduler, objective_of(scheduler, noise))

    def nearest_size(self, frames: int, height: int, width: int) -> Size:
        """Positions in time end somewhere."""
        most = self.denoiser.config.motion_max_seq_length
        return Size(min(frames, most), height, width, f"at most {most} frames")

    def denoise(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:
        """The UNet's answer; it wants channels before time, and the caption once for every frame."""
        frames = noisy.input_BTCHW.shape[1]
        prediction_BCTHW = self.denoiser(
            noisy.input_BTCHW.transpose(1, 2).to(self.dtype),
            noisy.timestep_B,
            conditions.tokens_BLD.to(self.dtype).repeat_interleave(frames, dim=0),
            return_dict=False,
        )[0]
        return in_full(prediction_BCTHW.transpose(1, 2))

    def pipeline(self) -> AnimateDiffPipeline:
        """The stock pipeline around these modules."""
        parts: Any = (self.vae, self.texts.encoder, self.texts.tokenizer, self.denoiser, None, self.scheduler)
        return AnimateDiffPipeline(*parts)
