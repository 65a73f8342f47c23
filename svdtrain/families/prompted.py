"""Models that are told what to show: a denoiser, a VAE and a text encoder, with what most of them do alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from svdtrain.families.frames import encode_frames, image_encoder_of, scaled_posterior
from svdtrain.families.loaded import LoadedModel
from svdtrain.families.text import TextConditions
from svdtrain.types import EncodedClips

if TYPE_CHECKING:
    from torch import nn

    from svdtrain.diffusion.objective import DiscretePrediction
    from svdtrain.families.protocol import Request
    from svdtrain.families.text import Texts
    from svdtrain.foundation.seeding import Draws
    from svdtrain.types import ClipBatch, LatentPosterior


class PromptedModel(LoadedModel):
    """The parts of one checkpoint whose VAE knows no time and which is told a text alone; others override what differs."""

    def __init__(
        self,
        denoiser: Any,  # noqa: ANN401
        vae: Any,  # noqa: ANN401
        texts: Texts,
        scheduler: Any,  # noqa: ANN401
        objective: DiscretePrediction,
    ) -> None:
        self.denoiser, self.vae, self.texts = denoiser, vae, texts
        self.scheduler, self.objective = scheduler, objective
        self.freeze()

    def frozen(self) -> dict[str, nn.Module]:
        """VAE and text encoder."""
        return {"vae": self.vae, "text_encoder": self.texts.encoder}

    def idle(self) -> list[nn.Module]:
        """All but the denoiser."""
        return [self.vae, self.texts.encoder]

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE's encoder, and the text encoder."""
        return image_encoder_of(self.vae) | {"text_encoder": self.texts.encoder}

    @torch.no_grad()
    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The VAE's posterior of every frame, and the caption's tokens."""
        pixels_BTCHW = clips.pixels_BTCHW.to(self.vae.device, torch.float32)
        tokens_BLD = self.texts.encode_captions(clips.captions_B)
        return EncodedClips(*encode_frames(self.vae, pixels_BTCHW), tokens_BLD)

    def posterior(self, encoded: EncodedClips) -> LatentPosterior:
        """The posterior times the VAE's scaling factor."""
        return scaled_posterior(self.vae, encoded)

    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> TextConditions:  # noqa: ARG002
        """The tokens; there is nothing to draw."""
        return TextConditions(encoded.embeddings_BLD, self.texts.empty_LD.to(encoded.embeddings_BLD))

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is not read."""
        return self.texts.unread(prompt)

    def asked(self, request: Request) -> dict[str, Any]:
        """What every one of their pipelines is called with."""
        return {
            "height": request.height,
            "width": request.width,
            "num_frames": request.frames,
            "num_inference_steps": request.steps,
            "guidance_scale": request.max_guidance,
            "generator": torch.Generator().manual_seed(request.seed),
            "output_type": "np",
        }

    def answer(self, pipeline: Any, request: Request) -> Any:  # noqa: ANN401
        """The pipeline's call; the VAE decodes frame by frame, which is the same and takes a twentieth of the memory."""
        self.vae.enable_slicing()
        try:
            return pipeline(request.prompt, negative_prompt=request.negative_prompt, **self.asked(request))
        finally:
            self.vae.disable_slicing()
