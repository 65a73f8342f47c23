"""What loaded models do alike: where their parts are, in which precision, and asking the stock pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from svdtrain.families.protocol import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from diffusers import DiffusionPipeline

    from svdtrain.families.protocol import FamilySpec, Request


class LoadedModel(ABC):
    """The parts of one checkpoint. All but the denoiser are frozen, and in fp32 unless `as_saved` names them."""

    spec: FamilySpec
    denoiser: Any
    """The network, as diffusers has it."""
    resting = False

    @abstractmethod
    def frozen(self) -> dict[str, nn.Module]:
        """The networks around the denoiser."""

    @abstractmethod
    def idle(self) -> Sequence[nn.Module]:
        """What of them neither `encode_conditions` nor `denoise` uses."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """The stock pipeline around these modules."""

    @abstractmethod
    def answer(self, pipeline: Any, request: Request) -> Any:  # noqa: ANN401
        """What the stock pipeline returns for a request."""

    as_saved: tuple[str, ...] = ()
    """Frozen parts that stay in their files' precision: too large for fp32, and not made for fp16 throughout."""

    def freeze(self) -> None:
        """From now on nothing around the denoiser is trained, or draws at random."""
        for part in self.frozen().values():
            part.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's precision."""
        return self.denoiser.dtype

    def to(self, device: torch.device | str, denoiser_dtype: torch.dtype) -> None:
        """Move all parts; the frozen ones keep fp32 (VAEs overflow in fp16), or what `as_saved` says."""
        nn.Module.to(self.denoiser, device=device, dtype=denoiser_dtype)
        self.encoders_to(device)

    def encoders_to(self, device: torch.device | str) -> None:
        """All but the denoiser: enough for `encode_clips`."""
        for name, part in self.frozen().items():
            nn.Module.to(part, device=device, dtype=None if name in self.as_saved else torch.float32)

    def rest(self) -> None:
        """Leave to the CPU's memory what neither `encode_conditions` nor `denoise` uses; `sample` fetches it."""
        self.resting = True
        self._move_idle("cpu")

    def nearest_size(self, frames: int, height: int, width: int) -> Size:
        """The size itself where this checkpoint can do it, as most can; else one near to it."""
        return Size(frames, height, width)

    def embed_images(self, image_BCHW: Tensor) -> Tensor:  # noqa: ARG002
        """By a family whose spec says so."""
        raise AssertionError(f"{self.spec.name} has no image encoder")

    def unread(self, prompt: str) -> str:  # noqa: ARG002
        """The end of a prompt that the text encoder does not read; empty where it reads all, or there is none."""
        return ""

    @torch.no_grad()
    def sample(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """One video per request by the stock pipeline, one after the other."""
        try:
            if self.resting:
                self._move_idle(self.device)
            pipeline: Any = self.pipeline()
            pipeline.set_progress_bar_config(disable=True)
            with self._half_where_it_is_heavy():
                return [(self.answer(pipeline, one).frames[0] * 255).round().astype("uint8") for one in requests]
        finally:
            if self.resting:
                self.rest()

    @contextmanager
    def _half_where_it_is_heavy(self) -> Iterator[None]:
        """A denoiser that is in half precision answers in fp32, in which samplers add up; likewise the VAE's decoder.

        All else is as it is in training: encoders in fp32, where VAEs do not overflow.
        """
        decoders = [part for part in self.frozen().values() if hasattr(part, "decode")]
        heavy = [(self.denoiser, "forward"), *((part, "decode") for part in decoders)]
        before = [(part, name, vars(part).get(name)) for part, name in heavy]
        for part, name in heavy if self.dtype in (torch.bfloat16, torch.float16) else ():
            setattr(part, name, partial(_in_half, self.device.type, self.dtype, getattr(part, name)))
        try:
            yield
        finally:
            for part, name, own in before:
                vars(part).pop(name, None) if own is None else setattr(part, name, own)

    def _move_idle(self, device: torch.device | str) -> None:
        for part in self.idle():
            nn.Module.to(part, device)


def _in_half(device: str, dtype: torch.dtype, usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """As in training, videos and tokens go in as `dtype`; numbers about them, such as the time, stay in fp32."""
    args, kwargs = tree_map(lambda part: part.to(dtype) if _is_wide(part) else part, (args, kwargs))
    with torch.autocast(device, dtype):
        answer = usual(*args, **kwargs)
    return tree_map(lambda part: part.float() if isinstance(part, Tensor) else part, answer)


def _is_wide(part: object) -> bool:
    return isinstance(part, Tensor) and part.ndim > 2 and part.is_floating_point()


def in_full(prediction: Tensor) -> Tensor:
    """A network's answer in fp32, or in the float64 that it was asked in."""
    return prediction if prediction.dtype == torch.float64 else prediction.float()
