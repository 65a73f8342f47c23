"""Every family, one row: how it is saved tiny, what it looks like in full, and the mathematics it should follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from svdtrain.diffusion.noise_levels import LogNormalLevels
from svdtrain.families.protocol import ModelFamily, Noise, Request
from svdtrain.families.registry import load_family
from svdtrain.families.weights import Weights
from svdtrain.types import ClipBatch
from tests.tiny_models import SIZE, save_tiny_svd
from tests.tiny_pipelines import save_tiny_animatediff, save_tiny_cogvideox, save_tiny_i2vgen_xl, save_tiny_unet3d
from tests.tiny_runs import moving_square

SEED = 3


@dataclass(frozen=True)
class Schedule:
    """design/svd_math.md 5: what is drawn, and what is asked; None: SVD's continuous levels."""

    betas: str
    shift: float = 1.0
    zero_terminal: bool = False
    target: str = "v"


@dataclass(frozen=True)
class Full:
    """The real network on the meta device."""

    make: Callable[[], nn.Module]
    latents: tuple[int, int, int, int]
    """T, C, H, W of the network's answer."""
    tokens: tuple[int, int]
    millions: float
    lora_millions: dict[str, float]
    """By half, of rank 16 over attention: design/svd_math.md 3.1 and 3.2."""
    lora_modules: dict[str, int]


@dataclass(frozen=True)
class Case:
    """One kind of checkpoint of a family."""

    name: str
    family: str
    model: str
    """In configs/model."""
    save: Callable[[Path], Path]
    schedule: Schedule | None
    full: Full
    frames: int = 3
    latent_frames: int = 3
    input_channels: int = 4
    """Of those that the network reads, the noisy ones."""
    time_first: bool = False
    """The network wants [B, T, C, H, W]."""
    words: tuple[str, ...] = field(default=())
    """Settings that the tiny checkpoint needs beside model=."""

    def load(self, folder: Path) -> ModelFamily:
        """The tiny checkpoint through the project's own loader."""
        levels = LogNormalLevels(0.7, 1.6, 0.002, 700.0)
        return load_family(self.family, Weights(str(folder)), Noise(levels, LogNormalLevels(-3.0, 0.5, 1e-6, 10.0)))

    def request(self, family: ModelFamily, prompt: str = "a cat", seed: int = SEED) -> Request:
        """What the stock pipeline is asked."""
        image = Image.fromarray(moving_square(0, self.frames)[0]) if family.spec.needs_image else None
        return Request(
            image, self.frames, SIZE, SIZE, 2, seed, 8, 127, prompt=prompt, max_guidance=6.0, noise_aug_strength=0.02
        )


def batch_of(case: Case, *captions: str, frames: int | None = None) -> ClipBatch:
    """Clips of one moving square each; equal captions mean equal clips."""
    numbers = [sorted(set(captions)).index(caption) for caption in captions]
    videos = np.stack([moving_square(number, case.frames)[:frames] for number in numbers])
    count = len(captions)
    return ClipBatch(
        torch.from_numpy(videos).permute(0, 1, 4, 2, 3) / 127.5 - 1,
        torch.full((count,), 8.0),
        torch.full((count,), 127.0),
        tuple(map(str, range(count))),
        tuple(range(count)),
        captions,
    )


def cogvideox(**changes: Any) -> nn.Module:  # noqa: ANN401
    return diffusers.CogVideoXTransformer3DModel(**changes)


FIVE = {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True}
NEWER = FIVE | {"patch_size_t": 2, "sample_height": 300, "sample_width": 300, "patch_bias": False}
"""1.5's positions reach to 300 x 300 patches (its config.json, as the stored copies of it say)."""
V = Schedule("scaled_linear", zero_terminal=True)


def cog(name: str, model: str, full: Full, schedule: Schedule, **kind: Any) -> Case:  # noqa: ANN401
    return Case(
        name,
        "cogvideox_image" if kind.get("image") else "cogvideox",
        model,
        partial(save_tiny_cogvideox, **kind),
        schedule,
        full,
        frames=9,
        latent_frames=4 if kind.get("newer") else 3,
        time_first=True,
    )


CASES = [
    Case(
        "svd",
        "svd",
        "svd_xt",
        save_tiny_svd,
        None,
        Full(
            lambda: diffusers.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
            (14, 4, 40, 72),
            (1, 1024),
            1524.623082,
            {"spatial": 2.459, "temporal": 2.459},
            {"spatial": 96, "temporal": 96},
        ),
        time_first=True,
    ),
    Case(
        "unet3d",
        "unet3d",
        "modelscope",
        save_tiny_unet3d,
        Schedule("scaled_linear", target="epsilon"),
        Full(
            diffusers.UNet3DConditionModel,
            (16, 4, 32, 32),
            (77, 1024),
            1411.2,
            {"spatial": 3.320, "temporal": 3.326},
            {"spatial": 128, "temporal": 136},
        ),
    ),
    Case(
        "animatediff",
        "animatediff",
        "animatediff",
        save_tiny_animatediff,
        Schedule("linear", target="epsilon"),
        Full(
            lambda: diffusers.UNetMotionModel(cross_attention_dim=768),
            (16, 4, 64, 64),
            (77, 768),
            1312.7,
            {"spatial": 3.189, "temporal": 4.833},
            {"spatial": 128, "temporal": 168},
        ),
        words=("model.motion_adapter=null",),
    ),
    Case(
        "i2vgen_xl",
        "i2vgen_xl",
        "i2vgen_xl",
        save_tiny_i2vgen_xl,
        Schedule("squaredcos_cap_v2", zero_terminal=True),
        Full(
            lambda: diffusers.I2VGenXLUNet(norm_num_groups=32),
            (16, 4, 88, 160),
            (77, 1024),
            1420.5,
            {"spatial": 3.320, "temporal": 3.326},  # without the four tiny ones of image_latents_temporal_encoder
            {"spatial": 128, "temporal": 136},
        ),
    ),
    cog(
        "cogvideox_2b",
        "cogvideox_2b",
        Full(cogvideox, (13, 16, 60, 90), (226, 4096), 1693.8, {"spatial": 7.373}, {"spatial": 120}),
        Schedule("scaled_linear", shift=3.0, zero_terminal=True),
    ),
    cog(
        "cogvideox_5b_i2v",
        "cogvideox_5b_i2v",
        Full(
            lambda: cogvideox(**FIVE, in_channels=32, use_learned_positional_embeddings=True),
            (13, 16, 60, 90),
            (226, 4096),
            5570.5,
            {"spatial": 16.515},
            {"spatial": 168},
        ),
        Schedule("scaled_linear", shift=3.0, zero_terminal=True),
        image=True,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    ),
    cog(
        "cogvideox_1_5",
        "cogvideox_1_5_5b",
        Full(lambda: cogvideox(**NEWER), (22, 16, 96, 170), (226, 4096), 5570.3, {"spatial": 16.515}, {"spatial": 168}),
        V,
        newer=True,
    ),
    cog(
        "cogvideox_1_5_i2v",
        "cogvideox_1_5_5b_i2v",
        Full(
            lambda: cogvideox(**NEWER, in_channels=32, ofs_embed_dim=512),
            (22, 16, 96, 170),
            (226, 4096),
            5571.6,
            {"spatial": 16.515},
            {"spatial": 168},
        ),
        V,
        image=True,
        newer=True,
    ),
]


def to_network(case: Case, latents_BTCHW: Tensor) -> Tensor:
    """In the network's own order of axes, and back."""
    return latents_BTCHW if case.time_first else latents_BTCHW.transpose(1, 2)
