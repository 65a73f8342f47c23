"""Single pictures through a video UNet: a clip of one frame is the frame of a clip, and takes the spatial features alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.resnet import AlphaBlender

if TYPE_CHECKING:
    from torch import nn


def lone_frames_are_frames(denoiser: nn.Module) -> None:
    """From now on, every blend of spatial and temporal features takes the spatial ones where there is one frame.

    Without it temporal layers answer to a lone frame too, and learn of it.
    """
    for module in denoiser.modules():
        if isinstance(module, AlphaBlender):
            module.register_forward_pre_hook(_take_spatial, with_kwargs=True)


def _take_spatial(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    indicator_BT = args[2] if len(args) > 2 else kwargs["image_only_indicator"]
    if indicator_BT.shape[-1] == 1:
        indicator_BT = torch.ones_like(indicator_BT)
    return args[:2], {**kwargs, "image_only_indicator": indicator_BT}
