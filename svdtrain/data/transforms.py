"""Frames to pixels of the model's size: resized so that they cover it, cropped at the centre, in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def cover_size(old_height: int, old_width: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a picture resized until it just covers height x width, its aspect kept.

    What a decoder is to resize to; `to_pixels` then only crops.
    """
    scale = max(height / old_height, width / old_width)
    return max(height, round(old_height * scale)), max(width, round(old_width * scale))


def fitted(frames_THWC: np.ndarray, height: int, width: int, *, flip: bool = False) -> Tensor:
    """uint8 [T, h, w, 3] to uint8 [T, 3, height, width], aspect kept; bit exact where the size is right."""
    pixels_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    old_height, old_width = pixels_TCHW.shape[-2:]
    size = cover_size(old_height, old_width, height, width)
    if size != (old_height, old_width):
        pixels_TCHW = interpolate(pixels_TCHW, size, mode="bicubic", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    pixels_TCHW = pixels_TCHW[:, :, top : top + height, left : left + width]
    return (pixels_TCHW.flip(-1) if flip else pixels_TCHW).contiguous()


def to_unit(pixels_CHW: Tensor) -> Tensor:
    """uint8 to fp32 in [-1, 1]."""
    return pixels_CHW.to(torch.float32) / 127.5 - 1


def to_pixels(frames_THWC: np.ndarray, height: int, width: int, *, flip: bool = False) -> Tensor:
    """uint8 [T, h, w, 3] to fp32 [T, 3, height, width] in [-1, 1]."""
    return to_unit(fitted(frames_THWC, height, width, flip=flip))
