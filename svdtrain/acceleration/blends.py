"""Spatial and temporal features blended in one pass over them; the shares of all blends are computed together.

diffusers takes four passes over features for each blend, and six kernels for its few shares, which frozen weights alone decide.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from diffusers.models.resnet import AlphaBlender
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from svdtrain.acceleration.frozen import EAGER, Blend
from svdtrain.acceleration.frozen_modules import eagerly, is_frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svdtrain.acceleration.frozen import Pointwise
    from svdtrain.acceleration.patches import Patches


def blends(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every frozen blend by frame; returns why there is none, or nothing."""
    found = [m for m in denoiser.modules() if isinstance(m, AlphaBlender) and is_frozen(m) and _is_by_frame(m)]
    shares = Shares(found)
    for number, module in enumerate(found):
        patches.forward(module, partial(blend, shares, number, module.forward))
    return "" if found else "no frozen blend of spatial and temporal features"


def _is_by_frame(blender: AlphaBlender) -> bool:
    return blender.merge_strategy == "learned_with_images" and not blender.switch_spatial_to_temporal_mix


class Shares:
    """Of spatial features in each blend, and of temporal ones: anew for each tensor that says which frames are pictures."""

    def __init__(self, blenders: Sequence[AlphaBlender]) -> None:
        self._blenders: Sequence[Any] = blenders
        self._known_of: Callable[[], Tensor | None] = lambda: None
        self._both_2BTM = torch.empty(0)

    def of(self, number: int, pictures_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Two [B, T]; a network hands one and the same tensor to all its blends."""
        if self._known_of() is not pictures_BT or self._both_2BTM.dtype != dtype:
            factors: list[Tensor] = [blender.mix_factor for blender in self._blenders]
            if any(isinstance(factor, DTensor) for factor in factors):  # of blocks that this rank has not in hand
                share_BT1, rest_BT1 = _both(factors[number], pictures_BT, dtype)
                return share_BT1[..., 0], rest_BT1[..., 0]
            self._both_2BTM, self._known_of = _both(torch.cat(factors), pictures_BT, dtype), ref(pictures_BT)
        share_BT, rest_BT = self._both_2BTM[..., number]
        return share_BT, rest_BT


def _both(factors_M: Tensor, pictures_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """[2, B, T, M]: of spatial features, and of temporal ones."""
    share_BTM = torch.where(pictures_BT.bool()[..., None], 1.0, torch.sigmoid(factors_M)).to(dtype)
    return torch.stack([share_BTM, 1 - share_BTM])


def blend(
    shares: Shares, number: int, usual: Callable[..., Tensor],
    x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None,
    choose: Callable[[Tensor], Pointwise] = eagerly,
) -> Tensor:  # fmt: skip
    """[B, C, T, H, W] or [B T, H W, C]: frame by frame, each with its share."""
    alike = x_spatial.dtype == x_temporal.dtype and x_spatial.ndim in (3, 5)
    if image_only_indicator is None or not alike or torch.compiler.is_compiling():
        return usual(x_spatial, x_temporal, image_only_indicator)
    by, both = choose(x_spatial), shares.of(number, image_only_indicator, x_spatial.dtype)
    if by is EAGER:
        of_frames = [one[:, None, :, None, None] if x_spatial.ndim == 5 else one.reshape(-1, 1, 1) for one in both]
        return Blend.apply(x_spatial, x_temporal, *of_frames, by)  # type: ignore[return-value]
    one, other = (x.transpose(1, 2) if x.ndim == 5 else x for x in (x_spatial, x_temporal))
    rows = (both[0].numel(), -1)
    answer: Tensor = Blend.apply(one.reshape(rows), other.reshape(rows), *(share.reshape(-1, 1) for share in both), by)  # type: ignore[assignment]
    answer = answer.view(one.shape)
    return answer.transpose(1, 2) if answer.ndim == 5 else answer
