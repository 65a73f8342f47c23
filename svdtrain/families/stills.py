"""Single pictures through a video UNet: with this switch, a clip of one frame uses (and trains) the spatial half alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.resnet import AlphaBlender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def image_only(denoiser: nn.Module) -> Iterator[None]:
    """Every blend of spatial and temporal features takes the spatial ones.

    Without it a clip of one frame is not the frame of a clip: temporal layers answer to a lone frame too.
    """

    def take_spatial(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        indicator = args[2] if len(args) > 2 else kwargs["image_only_indicator"]
        return args[:2], {**kwargs, "image_only_indicator": torch.ones_like(indicator)}

    blenders = [module for module in denoiser.modules() if isinstance(module, AlphaBlender)]
    hooks = [blender.register_forward_pre_hook(take_spatial, with_kwargs=True) for blender in blenders]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
