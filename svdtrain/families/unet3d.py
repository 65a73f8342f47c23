"""ModelScope and ZeroScope: text to video by a UNet that knows time (Wang et al. 2023, arXiv 2308.06571; diffusers' source)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel

from svdtrain.families.loaded import in_full
from svdtrain.families.parts import load_clip_texts, objective_of, presets
from svdtrain.families.prompted import PromptedModel
from svdtrain.families.protocol import FamilySpec
from svdtrain.families.weights import load_part

if TYPE_CHECKING:
    from torch import Tensor

    from svdtrain.families.protocol import Noise
    from svdtrain.families.text import TextConditions
    from svdtrain.families.weights import Weights
    from svdtrain.types import NoisyLatents

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"ff\.net\.(0\.proj|2)"
_SPATIAL = r".*\.attentions\.\d+\.transformer_blocks\.\d+"
_TEMPORAL = r"(.*\.temp_attentions\.\d+|transformer_in)\.transformer_blocks\.\d+"

SPEC = FamilySpec(
    name="unet3d",
    architecture="modelscope-text-to-video-v1",
    pipeline_class="TextToVideoSDPipeline",
    targets=presets({"spatial": _SPATIAL, "temporal": _TEMPORAL}, _ATTENTION, _FEED_FORWARD),
    repeated_blocks=("ResnetBlock2D", "TemporalConvLayer", "BasicTransformerBlock"),
    needs_image=False,
    needs_text=True,
    frames_alone=True,
)


class UNet3DFamily(PromptedModel):
    """The parts of one checkpoint."""

    spec = SPEC

    @classmethod
    def load(cls, weights: Weights, noise: Noise) -> UNet3DFamily:
        """Load a diffusers folder or a cached Hub snapshot; raises ModelError naming what is missing."""
        scheduler = load_part(DDIMScheduler, weights, "scheduler", clip_sample=False)
        return cls(
            load_part(UNet3DConditionModel, weights, "unet"),
            load_part(AutoencoderKL, weights, "vae"),
            load_clip_texts(weights),
            scheduler,
            objective_of(scheduler, noise),
        )

    def denoise(self, noisy: NoisyLatents, conditions: TextConditions) -> Tensor:
        """The UNet's answer; it wants channels before time, and repeats the caption for each frame itself."""
        prediction_BCTHW = self.denoiser(
            noisy.input_BTCHW.transpose(1, 2).to(self.dtype),
            noisy.timestep_B,
            conditions.tokens_BLD.to(self.dtype),
            return_dict=False,
        )[0]
        return in_full(prediction_BCTHW.transpose(1, 2))

    def pipeline(self) -> TextToVideoSDPipeline:
        """The stock pipeline around these modules."""
        return TextToVideoSDPipeline(self.vae, self.texts.encoder, self.texts.tokenizer, self.denoiser, self.scheduler)
