"""One training step, written the ways that are compared: the same weights, adapter, clips and draws in each.

`plain` is a step as the usual script for this model takes it: VAE and CLIP in the loop, autocast around a bf16 base with a
fp32 adapter of peft's, torch's AdamW, the loss read at each step. `strong` leaves out what need not be there: latents and
embeddings are made ahead, nothing is read. `_checkpointing` is diffusers' own switch. `ours` is what svdtrain puts on the
network, at each rung of its memory ladder. Networks of all variants share the base's tensors; adapters are their own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from torch import Tensor, nn

from svdtrain.acceleration.compiled import compile_blocks
from svdtrain.acceleration.flat import FlatParameters
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.acceleration.recompute import recompute
from svdtrain.adapters.inject import adapter_parameters, inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.svd import SPEC, SVDFamily
from svdtrain.foundation.seeding import Draws, generator
from svdtrain.types import ClipBatch, EncodedClips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.types import NoisyLatents

RATE, RANK = 1e-4, 16
EVERY_ATTENTION = r".*transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
"""Where the usual script adapts; svdtrain leaves attn2's queries and keys out, which one token never asks."""


@dataclass(frozen=True)
class Variant:
    """A way to take the step."""

    name: str
    in_loop: bool = False
    """VAE and CLIP at each step, and the loss read."""
    checkpointing: bool = False
    """diffusers' own."""
    ours: bool = False
    without: tuple[str, ...] = ("fused_pointwise",)
    """Levers that are off, as they are by default."""
    rung: str = "none"
    speed: str = "eager"


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("plain", in_loop=True),
        Variant("plain_checkpointing", in_loop=True, checkpointing=True),
        Variant("strong"),
        Variant("strong_checkpointing", checkpointing=True),
        Variant("ours", ours=True),
        Variant("ours_fused", ours=True, without=()),
        Variant("ours_feed_forward", ours=True, rung="feed_forward"),
        Variant("ours_blocks", ours=True, rung="blocks"),
        Variant("ours_nested", ours=True, rung="nested"),
        Variant("ours_offload", ours=True, rung="offload"),
        Variant("ours_compiled", ours=True, speed="compile"),
        Variant("ours_graphs", ours=True, speed="graphs"),
    )
}


@dataclass(frozen=True)
class Drawn:
    """The random numbers of one step, on the device."""

    posterior_BTCHW: Tensor
    noise_BTCHW: Tensor
    sigma_B: Tensor
    condition_level_B: Tensor
    condition_noise_BCHW: Tensor


@dataclass(frozen=True)
class Clips:
    """A batch of random clips, encoded ahead, and the draws of several steps."""

    pixels_BTCHW: Tensor
    encoded: EncodedClips
    ids: tuple[float, float]
    drawn: Sequence[Drawn]


def make_clips(family: SVDFamily, batch: int, frames: int, height: int, width: int, steps: int) -> Clips:
    """Smooth noise in [-1, 1], of fixed seeds."""
    device = family.device
    coarse = torch.rand(batch * frames, 3, height // 8, width // 8, generator=generator(0, "clips")).to(device)
    pixels = nn.functional.interpolate(2 * coarse - 1, (height, width), mode="bilinear").unflatten(0, (batch, frames))
    whole = torch.full((batch,), 7.0)
    keys = tuple(map(str, range(batch)))
    encoded = family.encode_clips(ClipBatch(pixels, whole, whole, keys, tuple(range(batch))))
    latent = tuple(encoded.mean_BTCHW.shape[1:])
    drawn: list[Drawn] = []
    for step in range(steps):
        draws = Draws(0, tuple(range(step * batch, (step + 1) * batch)), device=device)
        drawn.append(
            Drawn(
                draws.normal("posterior", latent),
                draws.normal("noise", latent),
                family.objective.levels(draws.stratified("noise level")).float(),
                family.condition_noise(draws.uniform("condition noise level")).float(),
                draws.normal("condition noise", (3, height, width)),
            )
        )
    return Clips(pixels, encoded, (6.0, 127.0), drawn)


def make_denoiser(base: Any, variant: Variant) -> nn.Module:  # noqa: ANN401
    """A network over the base's tensors, with an adapter that is not zero and what the variant puts on it."""
    with torch.device("meta"):
        denoiser: Any = type(base).from_config(base.config)
    denoiser.load_state_dict(base.state_dict(), assign=True)
    patterns = SPEC.targets["attention"] if variant.ours else {"all": EVERY_ATTENTION}
    inject(denoiser, AdapterSpec({half: HalfSpec(p, RANK, RANK, RATE) for half, p in patterns.items()}), seed=0)
    with torch.no_grad():
        for name, parameter in adapter_parameters(denoiser).items():
            parameter.data = parameter.data.to(next(base.parameters()).device)
            if name.endswith("lora_B.weight") and not parameter.is_meta:
                drawn = torch.randn(parameter.shape, generator=generator(0, "up", name))
                parameter.copy_(0.02 * drawn)
    denoiser.train()
    if variant.ours:
        accelerate(denoiser, set(LEVERS) - set(variant.without))
        if variant.speed != "eager":
            compile_blocks(denoiser, SPEC.repeated_blocks, variant.speed)
        recompute(denoiser, variant.rung, SPEC.repeated_blocks)
    if variant.checkpointing:
        denoiser.enable_gradient_checkpointing()
    return denoiser


class Step:
    """A variant's training step; called with clips and a number, it returns the loss as a tensor."""

    def __init__(self, variant: Variant, family: SVDFamily) -> None:
        self.variant, self.family, self.dtype = variant, family, family.dtype
        self.denoiser = make_denoiser(family.denoiser, variant)
        self.trained = [p for p in self.denoiser.parameters() if p.requires_grad]
        self.beside: list[nn.Module] = [family.vae.encoder]
        if variant.in_loop:
            self.vae, self.clip = (self._in_its_precision(part) for part in (family.vae, family.image_encoder))
            self.beside = [self.vae, self.clip]
        self._flat = FlatParameters({"all": self.trained}) if variant.ours else None
        self._start = [p.detach().clone() for p in self.trained]
        self.reset()

    def reset(self) -> None:
        """The adapter as it was in the beginning, and an optimizer that has seen nothing."""
        with torch.no_grad():
            for parameter, value in zip(self.trained, self._start, strict=True):
                parameter.copy_(value)
        parameters = list(self._flat.groups.values()) if self._flat else self.trained
        self.optimizer = torch.optim.AdamW(parameters, RATE, fused=True if self._flat else None)
        self._zero()

    def __call__(self, clips: Clips, number: int) -> Tensor:
        """Forward, backward, AdamW."""
        drawn = clips.drawn[number % len(clips.drawn)]
        loss = self._ours(clips, drawn) if self.variant.ours else self._usual(clips, drawn)
        loss.backward()
        self.optimizer.step()
        self._zero()
        if self.variant.in_loop:
            loss.item()
        return loss.detach()

    def resident(self) -> dict[str, int]:
        """Bytes of what stays from step to step: the step's own, and networks around the denoiser."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        gradients = [p.grad for p in self.trained if p.grad is not None]
        mine = [*self.denoiser.parameters(), *gradients, *state]
        around = [p for part in self.beside for p in part.parameters()]
        return {"own": _bytes(mine), "beside": _bytes(around)}

    def _zero(self) -> None:
        self._flat.zero_gradients() if self._flat else self.optimizer.zero_grad()

    def _in_its_precision(self, part: nn.Module) -> Any:  # noqa: ANN401
        return part if self.dtype == torch.float32 else copy.deepcopy(part).to(self.dtype)

    def _ours(self, clips: Clips, drawn: Drawn) -> Tensor:
        family = self.family
        with torch.no_grad():
            latents_BTCHW = family.posterior(clips.encoded).sample(drawn.posterior_BTCHW)
            image_BCHW = _noisy_first(clips, drawn)
            image_latents_BCHW = family.vae.encode(image_BCHW, return_dict=False)[0].mode()
        noisy = family.objective.corrupt(latents_BTCHW, drawn.noise_BTCHW, drawn.sigma_B)
        prediction = self._denoise(noisy, image_latents_BCHW, clips.encoded.embeddings_BLD, clips, drawn)
        return (mean_error_per_clip(prediction, noisy.target_BTCHW) * noisy.weight_B).mean()

    def _usual(self, clips: Clips, drawn: Drawn) -> Tensor:
        family, device = self.family, clips.pixels_BTCHW.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            with torch.no_grad():
                if self.variant.in_loop:
                    frames_NCHW = clips.pixels_BTCHW.flatten(0, 1).to(self.dtype)
                    posterior = self.vae.encode(frames_NCHW, return_dict=False)[0]
                    latents_NCHW = posterior.mean + posterior.std * drawn.posterior_BTCHW.flatten(0, 1)
                    latents_BTCHW = (
                        latents_NCHW.view_as(drawn.noise_BTCHW).float() * family.vae.config["scaling_factor"]
                    )
                    image_BCHW = _noisy_first(clips, drawn).to(self.dtype)
                    image_latents_BCHW = self.vae.encode(image_BCHW, return_dict=False)[0].mode()
                    context_BLD = self._embedded(clips.pixels_BTCHW[:, 0])
                else:
                    latents_BTCHW = family.posterior(clips.encoded).sample(drawn.posterior_BTCHW)
                    image_latents_BCHW = family.vae.encode(_noisy_first(clips, drawn), return_dict=False)[0].mode()
                    context_BLD = clips.encoded.embeddings_BLD
            noisy = family.objective.corrupt(latents_BTCHW, drawn.noise_BTCHW, drawn.sigma_B)
            prediction_BTCHW = self._denoise(noisy, image_latents_BCHW, context_BLD, clips, drawn)
            error = (prediction_BTCHW.float() - noisy.target_BTCHW.float()) ** 2
            return error.flatten(1).mean(1).mean()

    def _embedded(self, image_BCHW: Tensor) -> Tensor:
        """By the processor, which works on the CPU's arrays."""
        small_BCHW = (_resize_with_antialiasing(image_BCHW, (224, 224)) + 1.0) / 2.0
        flags = dict.fromkeys(("do_center_crop", "do_resize", "do_rescale"), False)
        processor: Any = self.family.feature_extractor
        pixels_BCHW = processor(
            images=small_BCHW.float().cpu(), do_normalize=True, return_tensors="pt", **flags
        ).pixel_values
        return self.clip(pixels_BCHW.to(image_BCHW.device, self.dtype)).image_embeds[:, None]

    def _denoise(
        self, noisy: NoisyLatents, image_BCHW: Tensor, context_BLD: Tensor, clips: Clips, drawn: Drawn
    ) -> Tensor:
        frames = noisy.input_BTCHW.shape[1]
        image_BTCHW = image_BCHW[:, None].expand(-1, frames, -1, -1, -1)
        input_BTCHW = torch.cat([noisy.input_BTCHW, image_BTCHW.to(noisy.input_BTCHW)], dim=2).to(self.dtype)
        level_B = drawn.condition_level_B
        ids_BD = torch.stack([*(torch.full_like(level_B, value) for value in clips.ids), level_B], dim=1)
        return self.denoiser(input_BTCHW, noisy.timestep_B, context_BLD.to(self.dtype), ids_BD, return_dict=False)[0]


def _noisy_first(clips: Clips, drawn: Drawn) -> Tensor:
    return clips.pixels_BTCHW[:, 0] + drawn.condition_level_B[:, None, None, None] * drawn.condition_noise_BCHW


def _bytes(tensors: Sequence[Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
