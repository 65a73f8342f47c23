"""Frames to pixels of the model's size: resized so that they cover it, cropped at the centre, in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def to_pixels(frames_THWC: np.ndarray, height: int, width: int, *, flip: bool = False) -> Tensor:
    """uint8 [T, h, w, 3] to fp32 [T, 3, height, width] in [-1, 1], aspect kept; bit exact where the size is right."""
    pixels_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    old_height, old_width = pixels_TCHW.shape[-2:]
    scale = max(height / old_height, width / old_width)
    size = max(height, round(old_height * scale)), max(width, round(old_width * scale))
    if size != (old_height, old_width):
        pixels_TCHW = interpolate(pixels_TCHW, size, mode="bicubic", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    pixels_TCHW = pixels_TCHW[:, :, top : top + height, left : left + width]
    if flip:
        pixels_TCHW = pixels_TCHW.flip(-1)
    return pixels_TCHW.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1
