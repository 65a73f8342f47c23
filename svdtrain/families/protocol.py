"""The seam: everything the trainer, the generator and the planner need from a video model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from diffusers import DiffusionPipeline
    from numpy import ndarray
    from PIL import Image
    from torch import Tensor, nn

    from svdtrain.diffusion.noise_levels import LogNormalLevels
    from svdtrain.diffusion.objective import Objective
    from svdtrain.foundation.seeding import Draws
    from svdtrain.types import ClipBatch, Conditions, EncodedClips, LatentPosterior, NoisyLatents


@dataclass(frozen=True)
class FamilySpec:
    """Facts about a family; no weights."""

    name: str
    architecture: str
    """Its name in ModelSpec (https://github.com/Stability-AI/ModelSpec)."""
    pipeline_class: str
    """The stock diffusers pipeline that samples it, and whose folders it loads."""
    targets: Mapping[str, Mapping[str, str]]
    """Adapter presets: modules -> half -> regular expression over full module names. Halves are spatial and temporal; a
    network whose attention is over both at once has one, called spatial."""
    repeated_blocks: tuple[str, ...]
    """Class names of the denoiser's blocks that gradient checkpointing recomputes."""
    needs_image: bool
    needs_text: bool
    frames_alone: bool
    """The VAE encodes each frame by itself, so that windows of a clip share latents."""
    embeds_images: bool = False
    """It has an image encoder of CLIP's kind, by which pictures can be compared."""
    reads_motion: bool = False
    """It is told a motion bucket."""
    unheard: str = ""
    """Regular expression over full names of modules whose adapters change nothing: a softmax over one token is 1 anyway."""
    also_loads: tuple[str, ...] = ()
    """Other pipelines whose folders hold what it needs."""

    @property
    def use(self) -> dict[str, str | bool]:
        """What run.json tells a reader who has no families at hand."""
        return {"pipeline": self.pipeline_class, "image": self.needs_image, "text": self.needs_text}


@dataclass(frozen=True)
class Noise:
    """What a model config says about noise; a family takes of it what it has."""

    levels: LogNormalLevels | None = None
    """Of training, where they are continuous; a discrete schedule is the checkpoint's own."""
    condition: LogNormalLevels | None = None
    """On the condition image."""
    offset: float = 0.0
    """Of noise that is one number for all pixels of a clip's channel."""


@dataclass(frozen=True)
class Size:
    """Of a video, in frames and pixels."""

    frames: int
    height: int
    width: int
    rule: str = ""
    """What decides which sizes a checkpoint can do, in a few words."""


@dataclass(frozen=True)
class Request:
    """One generation."""

    image: Image.Image | None
    frames: int
    height: int
    width: int
    steps: int
    seed: int
    fps: int
    motion_bucket_id: int
    noise_aug_strength: float = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    """The guidance, where it does not change from frame to frame."""
    prompt: str = ""
    negative_prompt: str = ""


class ModelFamily(Protocol):
    """A loaded model of a family."""

    spec: FamilySpec
    denoiser: nn.Module
    """The only part that is ever trained."""
    objective: Objective

    def to(self, device: torch.device | str, denoiser_dtype: torch.dtype) -> None:
        """Move all parts; frozen encoders keep the precision they need."""
        ...

    def encoders_to(self, device: torch.device | str) -> None:
        """All but the denoiser: enough for `encode_clips`."""
        ...

    def encoders(self) -> Mapping[str, nn.Module]:
        """What `encode_clips` uses: what its answers depend on besides the clips."""
        ...

    def frozen(self) -> Mapping[str, nn.Module]:
        """The networks around the denoiser."""
        ...

    def idle(self) -> Sequence[nn.Module]:
        """What of them neither `encode_conditions` nor `denoise` uses."""
        ...

    def rest(self) -> None:
        """Leave to the CPU's memory, from now on, what is idle; `sample` fetches it."""
        ...

    def nearest_size(self, frames: int, height: int, width: int) -> Size:
        """The size itself where this checkpoint can do it, else one near to it."""
        ...

    def unread(self, prompt: str) -> str:
        """The end of a prompt that the text encoder does not read; empty where it reads all, or there is none."""
        ...

    def encode_clips(self, clips: ClipBatch) -> EncodedClips:
        """The part of encoding that no random draw changes: a function of the pixels (and captions) alone."""
        ...

    def posterior(self, encoded: EncodedClips) -> LatentPosterior:
        """The posterior over latents in the denoiser's scale."""
        ...

    def encode_conditions(self, clips: ClipBatch, encoded: EncodedClips, draws: Draws) -> Conditions:
        """What the denoiser is told about each clip. Of the pixels only the first frame is looked at."""
        ...

    def embed_images(self, image_BCHW: Tensor) -> Tensor:
        """Where the spec says that it does: embeddings [B, 1, D] of whole frames in [-1, 1]."""
        ...

    def denoise(self, noisy: NoisyLatents, conditions: Conditions) -> Tensor:
        """The network's prediction, fp32 [B, T, C, H, W]."""
        ...

    def pipeline(self) -> DiffusionPipeline:
        """The stock pipeline around the very same modules."""
        ...

    def sample(self, requests: Sequence[Request]) -> list[ndarray]:
        """A uint8 [T, H, W, 3] video per request, by the stock pipeline; equal requests give equal frames."""
        ...
