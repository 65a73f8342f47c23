"""The nouns every layer shares, and the legend of shapes.

B clips of a batch · T frames · C channels · H, W height and width (of pixels or of latents) · L tokens · D features.
A name carries its axes: pixels_BTCHW, sigma_B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EncodedClips:
    """What the frozen encoders make of clips, before any random draw: all of it may be kept from one epoch to the next."""

    mean_BTCHW: Tensor
    """Of the VAE's posterior, in the VAE's own scale."""
    logvar_BTCHW: Tensor
    embeddings_BLD: Tensor
    """Of the condition encoders: the caption's tokens, the clean first frame by CLIP, or both along L."""

    def to(self, device: torch.device | str) -> EncodedClips:
        """The same, on a device."""
        return EncodedClips(*(tensor.to(device) for tensor in vars(self).values()))

    def pin_memory(self) -> EncodedClips:
        """The same, in page-locked memory."""
        return EncodedClips(*(tensor.pin_memory() for tensor in vars(self).values()))


@dataclass(frozen=True)
class ClipBatch:
    """Training clips as the data stream hands them out."""

    pixels_BTCHW: Tensor
    """fp32 RGB in [-1, 1]; the first frame alone (T = 1) where `encoded` holds the rest."""
    fps_B: Tensor
    """fp32 frames per second at which the frames were taken (not the file's rate)."""
    motion_bucket_B: Tensor
    """fp32 in [0, 255]."""
    keys_B: tuple[str, ...]
    """Clip keys, with everything that chose the pixels (window, flip): equal keys mean equal pixels."""
    positions_B: tuple[int, ...]
    """Global position in the stream; the key of every random draw."""
    captions_B: tuple[str, ...] = ()
    """Empty strings where clips have none, or none were asked for."""
    encoded: EncodedClips | None = None
    """What a cache on disk kept of the clips."""

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same batch with its tensors on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("pixels_BTCHW", "fps_B", "motion_bucket_B")}
        return replace(self, **moved, encoded=self.encoded and self.encoded.to(device))

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory: what DataLoader(pin_memory=True) calls."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("pixels_BTCHW", "fps_B", "motion_bucket_B")}
        return replace(self, **pinned, encoded=self.encoded and self.encoded.pin_memory())


class Conditions(Protocol):
    """What a denoiser is told besides the noisy latents. Each family has its own frozen dataclass."""

    def dropped(self, drop_B: Tensor) -> Self:
        """The unconditional branch of the family's sampler for the clips where bool drop_B [B] is true."""
        ...

    def without_image(self, drop_B: Tensor) -> Self:
        """For those clips no picture (or no embedding of it), whatever else they are told."""
        ...


@dataclass(frozen=True)
class LatentPosterior:
    """A VAE's posterior over a clip's latents, already in the denoiser's scale."""

    mean_BTCHW: Tensor
    std_BTCHW: Tensor
    first_repeated: int = 0
    """How often the first latent stands before itself, for denoisers that take several latents at once."""

    def sample(self, noise_BTCHW: Tensor) -> Tensor:
        """Latents [B, first_repeated + T, C, H, W] = mean + std * noise."""
        return self._lengthened(self.mean_BTCHW + self.std_BTCHW * noise_BTCHW)

    def mode(self) -> Tensor:
        """The likeliest latents."""
        return self._lengthened(self.mean_BTCHW)

    def _lengthened(self, latents_BTCHW: Tensor) -> Tensor:
        first_BTCHW = latents_BTCHW[:, :1].expand(-1, self.first_repeated, -1, -1, -1)
        return torch.cat([first_BTCHW, latents_BTCHW], dim=1) if self.first_repeated else latents_BTCHW


@dataclass(frozen=True)
class NoisyLatents:
    """Corrupted latents in network space: what the denoiser reads, and what it should answer."""

    input_BTCHW: Tensor
    """fp32, scaled as the network expects it."""
    timestep_B: Tensor
    """fp32, the network's own encoding of the noise level."""
    target_BTCHW: Tensor
    """fp32, what the network is asked to predict."""
    weight_B: Tensor
    """fp32 weight of each clip's loss."""
    sigma_B: Tensor
    """fp32 noise level, for logging by level."""
