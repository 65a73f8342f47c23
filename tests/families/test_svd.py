"""SVD's training inputs against the stock pipeline, on a tiny random model that goes through the real loader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import AlphaBlender
from PIL import Image

from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.svd import SPEC, SVDConditions, SVDFamily
from svdtrain.foundation.seeding import Draws
from svdtrain.types import ClipBatch, NoisyLatents
from tests.tiny_models import FRAMES, SIZE, load_tiny_svd, save_tiny_svd


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture
def family(folder: Path) -> SVDFamily:
    return load_tiny_svd(folder)


def picture(seed: int = 0, height: int = SIZE, width: int = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def batch_of(images: list[Image.Image], fps: float = 7.0, bucket: float = 127.0) -> ClipBatch:
    first = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]) / 127.5 - 1
    count = len(images)
    return ClipBatch(
        pixels_BTCHW=first[:, None].repeat(1, FRAMES, 1, 1, 1),
        fps_B=torch.full((count,), fps),
        motion_bucket_B=torch.full((count,), bucket),
        keys_B=tuple(f"clip{i}" for i in range(count)),
        positions_B=tuple(range(count)),
    )


class FixedDraws(Draws):
    """The pipeline's own condition noise, so that both sides can be compared to the bit."""

    noise_BCHW: torch.Tensor

    def __init__(self, noise_BCHW: torch.Tensor) -> None:
        super().__init__(0, tuple(range(len(noise_BCHW))))
        object.__setattr__(self, "noise_BCHW", noise_BCHW)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
        return self.noise_BCHW if purpose == "condition noise" else super().normal(purpose, shape)


def captured_pipeline_inputs(family: SVDFamily, image: Image.Image, aug: float) -> dict[str, torch.Tensor]:
    """The UNet's inputs of the first sampling step: both halves of classifier-free guidance."""
    seen: dict[str, Any] = {}

    def catch(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.update(sample=args[0], timestep=args[1], **kwargs)

    hook = family.denoiser.register_forward_pre_hook(catch, with_kwargs=True)
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        image,
        height=SIZE,
        width=SIZE,
        num_frames=FRAMES,
        num_inference_steps=2,
        fps=7,
        motion_bucket_id=127,
        noise_aug_strength=aug,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    )
    hook.remove()
    return seen


def training_inputs(family: SVDFamily, image: Image.Image, aug: float) -> tuple[NoisyLatents, SVDConditions]:
    """The same draws through the training path: z = 0, sigma = the sampler's first."""
    g = torch.Generator().manual_seed(3)
    noise_BCHW = torch.randn(1, 3, SIZE, SIZE, generator=g)
    start = torch.randn(1, FRAMES, 4, SIZE // 2, SIZE // 2, generator=g)
    family.condition_noise = LogNormalLevels(float(np.log(aug)), 1e-9, 1e-6, 10.0)
    batch = batch_of([image])
    conditions = family.encode_conditions(batch, family.encode_clips(batch), FixedDraws(noise_BCHW))
    sigma = 700.0
    # The pipeline starts from noise * sqrt(sigma^2 + 1), of which sigma * e with e = noise * sqrt(1 + 1/sigma^2).
    noise = start * (1 + 1 / sigma**2) ** 0.5
    return family.objective.corrupt(torch.zeros_like(noise), noise, torch.tensor([sigma])), conditions


def test_training_inputs_are_the_pipelines_inputs(family: SVDFamily) -> None:
    image, aug = picture(), 0.02
    seen = captured_pipeline_inputs(family, image, aug)
    noisy, conditions = training_inputs(family, image, aug)
    noisy_half, image_half = seen["sample"][1].split(4, dim=1)
    assert (noisy.input_BTCHW[0] - noisy_half).abs().max() < 2e-6
    assert (conditions.image_latents_BCHW - image_half).abs().max() < 2e-6
    assert torch.equal(conditions.image_embeddings_BLD, seen["encoder_hidden_states"][1:])
    assert (conditions.time_ids_BD - seen["added_time_ids"][1:]).abs().max() < 1e-8
    assert (noisy.timestep_B - seen["timestep"]).abs().max() < 1e-6
    scaled = family.vae.config["scaling_factor"] * image_half
    assert (conditions.image_latents_BCHW - scaled).abs().max() > 1e-3, "the test cannot see a wrong scale"


def test_a_dropped_clip_is_the_pipelines_unconditional_half(family: SVDFamily) -> None:
    image = picture(1)
    seen = captured_pipeline_inputs(family, image, 0.02)
    _, conditions = training_inputs(family, image, 0.02)
    dropped = conditions.dropped(torch.tensor([True]))
    assert torch.equal(dropped.image_latents_BCHW.expand(FRAMES, -1, -1, -1), seen["sample"][0][:, 4:])
    assert torch.equal(dropped.image_embeddings_BLD, seen["encoder_hidden_states"][:1])
    assert (dropped.time_ids_BD - seen["added_time_ids"][:1]).abs().max() < 1e-8
    kept = conditions.dropped(torch.tensor([False]))
    assert torch.equal(kept.image_latents_BCHW, conditions.image_latents_BCHW)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (72, 128), (300, 260)])
def test_image_embedding_is_bit_equal_to_the_pipelines(family: SVDFamily, height: int, width: int) -> None:
    image = picture(2, height, width)
    expected = family.pipeline()._encode_image(image, torch.device("cpu"), 1, False)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255.0 * 2.0 - 1.0
    with torch.no_grad():
        assert torch.equal(family.embed_images(pixels), expected)


def test_resizing_keeps_a_constant_image(family: SVDFamily) -> None:
    pixels = torch.full((1, 3, 72, 128), 0.25)
    seen: list[torch.Tensor] = []
    hook = family.image_encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        family.embed_images(pixels)
    hook.remove()
    assert float((seen[0] - seen[0].mean((2, 3), keepdim=True)).abs().max()) < 2e-6


def test_targets_are_scaled_and_conditions_are_not(family: SVDFamily) -> None:
    batch = batch_of([picture(3)])
    posterior = family.posterior(family.encode_clips(batch))
    with torch.no_grad():
        raw = family.vae.encode(batch.pixels_BTCHW[0], return_dict=False)[0]
    scale = family.vae.config["scaling_factor"]
    assert (posterior.mean_BTCHW[0] - raw.mean * scale).abs().max() < 1e-6
    assert (posterior.std_BTCHW[0] - raw.std * scale).abs().max() < 1e-6


def random_inputs(family: SVDFamily, count: int, frames: int = FRAMES) -> tuple[NoisyLatents, SVDConditions]:
    g = torch.Generator().manual_seed(5)
    z, noise = (torch.randn(count, frames, 4, 16, 16, generator=g, dtype=torch.float64) for _ in range(2))
    noisy = family.objective.corrupt(z, noise, torch.tensor([0.3, 2.0, 30.0][:count], dtype=torch.float64))
    ids = torch.tensor([[6.0, 127.0, 0.02], [9.0, 60.0, 0.1], [4.0, 200.0, 0.05]][:count], dtype=torch.float64)
    embeddings = torch.randn(count, 1, 32, generator=g, dtype=torch.float64)
    return noisy, SVDConditions(torch.randn(count, 4, 16, 16, generator=g, dtype=torch.float64), embeddings, ids)


def one(noisy: NoisyLatents, conditions: SVDConditions, index: int) -> tuple[NoisyLatents, SVDConditions]:
    part = slice(index, index + 1)
    return (
        NoisyLatents(**{name: value[part] for name, value in vars(noisy).items()}),
        SVDConditions(**{name: value[part] for name, value in vars(conditions).items()}),
    )


def test_clips_of_a_batch_do_not_see_each_other(family: SVDFamily) -> None:
    family.denoiser.double()
    noisy, conditions = random_inputs(family, 3)
    with torch.no_grad():
        together = mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW)
        alone = [
            mean_error_per_clip(family.denoise(*one(noisy, conditions, i)), noisy.target_BTCHW[i : i + 1])
            for i in range(3)
        ]
    assert (together - torch.cat(alone)).abs().max() < 1e-12


def test_order_of_time_ids_matters(family: SVDFamily) -> None:
    family.denoiser.double()
    noisy, conditions = random_inputs(family, 1)
    swapped = replace(conditions, time_ids_BD=conditions.time_ids_BD[:, [0, 2, 1]])
    with torch.no_grad():
        assert (family.denoise(noisy, conditions) - family.denoise(noisy, swapped)).abs().max() > 1e-4


def spatial(kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs | {"image_only_indicator": torch.ones_like(kwargs["image_only_indicator"])}


def test_a_lone_frame_is_the_frame_of_a_clip_and_teaches_no_motion(family: SVDFamily) -> None:
    """T11."""
    family.denoiser.double()
    noisy, conditions = random_inputs(family, 1)
    lone = replace(noisy, input_BTCHW=noisy.input_BTCHW[:, :1], target_BTCHW=noisy.target_BTCHW[:, :1])
    alone = family.denoise(lone, conditions)
    mean_error_per_clip(alone, lone.target_BTCHW).mean().backward()
    temporal = [p.grad for n, p in family.denoiser.named_parameters() if "temporal" in n and p.grad is not None]
    assert temporal
    assert all(float(grad.abs().max()) == 0.0 for grad in temporal)
    with torch.no_grad():
        three = family.denoise(noisy, conditions)[:, :1]
        for module in family.denoiser.modules():
            if isinstance(module, AlphaBlender):  # spatial features alone, of three frames
                module.register_forward_pre_hook(lambda _m, args, kw: (args[:2], spatial(kw)), with_kwargs=True)
        first_of_three = family.denoise(noisy, conditions)[:, :1]
    assert (first_of_three - alone).abs().max() < 2e-6
    assert (three - alone).abs().max() > 1e-3


def spec_of(modules: str, spatial: int = 4, temporal: int = 4) -> AdapterSpec:
    patterns = SPEC.targets[modules]
    ranks = {"spatial": spatial, "temporal": temporal}
    return AdapterSpec({half: HalfSpec(patterns[half], ranks[half], ranks[half], 1e-3) for half in ranks})


def test_every_adapter_learns_and_none_sits_on_a_dead_module(family: SVDFamily) -> None:
    modules = inject(family.denoiser, spec_of("attention_and_feed_forward"), seed=0)
    assert not [name for name in modules if name.endswith(("attn2.to_q", "attn2.to_k"))]
    family.denoiser.double()
    noisy, conditions = random_inputs(family, 2)
    mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW).mean().backward()
    ups = {n: p.grad for n, p in family.denoiser.named_parameters() if "lora_B" in n}
    assert len(ups) == len(modules)
    assert all(grad is not None and float(grad.abs().max()) > 1e-9 for grad in ups.values())


COUNTS = [  # preset, rank, spatial modules, temporal modules, parameters in millions (both halves)
    ("attention", 4, 96, 96, 1.229),
    ("attention", 16, 96, 96, 4.917),
    ("attention", 64, 96, 96, 19.669),
]


@pytest.mark.parametrize(("modules", "rank", "spatial", "temporal", "millions"), COUNTS)
def test_full_size_adapter_counts(modules: str, rank: int, spatial: int, temporal: int, millions: float) -> None:
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))
    assert sum(p.numel() for p in unet.parameters()) == 1_524_623_082
    halves = list(inject(unet, spec_of(modules, rank, rank), seed=0).values())
    assert (halves.count("spatial"), halves.count("temporal")) == (spatial, temporal)
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_full_size_model_accepts_the_training_inputs() -> None:
    """SVD-XT's real geometry on the meta device: 25 frames of 576 x 1024."""
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))
        torch.nn.Module.to(unet, "meta", torch.bfloat16)
        latents = torch.empty(1, 25, 4, 72, 128)
        conditions = SVDConditions(torch.empty(1, 4, 72, 128), torch.empty(1, 1, 1024), torch.empty(1, 3))
        noisy = NoisyLatents(latents, torch.empty(1), latents, torch.empty(1), torch.empty(1))
    family = SVDFamily.__new__(SVDFamily)
    family.denoiser = unet
    prediction = family.denoise(noisy, conditions)
    assert prediction.shape == latents.shape
    assert prediction.dtype == torch.float32
