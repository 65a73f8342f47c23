"""Whether a file does in a fresh stock pipeline what the adapter does in memory: sampled, compared, and told in numbers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from svdtrain.families.protocol import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from svdtrain.families.protocol import ModelFamily

LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""How far a file may be from memory, as a share of what the adapter changes; fp16 keeps 11 bits, bf16 keeps 8."""
ROUNDING = 3e-5
"""Of the largest number: what another order of additions costs in fp32, over the steps of a sample."""
FRAMES, SIDE = 5, 256
"""A proof is sampled at most this long and large."""


@dataclass(frozen=True)
class Sampled:
    """What a denoiser answered at every step but the last, and the video that came of all.

    The last is asked about an input almost without noise, whose rounding a division by its noise level makes large.
    """

    answers: Tensor
    frames: np.ndarray


@dataclass(frozen=True)
class Proof:
    """Differences in the denoiser's predictions, and in frames of 0 to 255."""

    difference: float
    """Largest, between the file and the adapter in memory."""
    change: float
    """Largest, between the base and the adapter in memory."""
    scale: float
    """The largest prediction."""
    frames_difference: int
    frames_change: int

    def holds(self, dtype: str) -> bool:
        """Whether the difference is no more than the dtype's rounding."""
        return self.difference <= LIMITS[dtype] * self.change + ROUNDING * self.scale

    def __str__(self) -> str:
        share = f"{self.difference / self.change:.1e} of what it changes" if self.change else "it changes nothing"
        return (
            f"differs from memory by {self.difference:.2e} ({share}: {self.change:.2e}); "
            f"frames by {self.frames_difference} of {self.frames_change} levels"
        )


def proof(memory: Sampled, base: Sampled, file: Sampled) -> Proof:
    """Compare three samples of one request."""
    return Proof(
        difference=float((file.answers - memory.answers).abs().max()),
        change=float((base.answers - memory.answers).abs().max()),
        scale=float(memory.answers.abs().max()),
        frames_difference=_apart(file.frames, memory.frames),
        frames_change=_apart(base.frames, memory.frames),
    )


def _apart(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(np.int16) - second).max())


def request_of(
    family: ModelFamily, height: int, width: int, frames: int, fps: float, motion_bucket: int, steps: int
) -> Request:
    """The same small request every time: a picture of two slopes, seed 0."""
    size = family.nearest_size(min(frames, FRAMES), min(height, SIDE), min(width, SIDE))
    down, across = np.meshgrid(np.linspace(0, 255, size.height), np.linspace(0, 255, size.width), indexing="ij")
    picture = np.stack([down, across, 255 - (down + across) / 2], axis=-1).astype(np.uint8)
    return Request(
        image=Image.fromarray(picture),
        frames=min(size.frames, FRAMES),
        height=size.height,
        width=size.width,
        steps=steps,
        seed=0,
        fps=round(fps),
        motion_bucket_id=motion_bucket,
    )


def sampled(family: ModelFamily, request: Request) -> Sampled:
    """Sample by the stock pipeline, and keep what the denoiser answered on the way."""
    with _listening(family.denoiser) as answers:
        (frames,) = family.sample([request])
    return Sampled(torch.stack(answers[:-1] or answers), frames)


@contextmanager
def _listening(denoiser: nn.Module) -> Iterator[list[Tensor]]:
    answers: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        answers.append(output[0].detach().float().cpu())

    handle = denoiser.register_forward_hook(keep)
    try:
        yield answers
    finally:
        handle.remove()
