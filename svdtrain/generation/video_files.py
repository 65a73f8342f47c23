"""Videos as files: H.264 mp4 in the normal form of data/encoding.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.data.encoding import encode_mp4
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

__all__ = ["encode_mp4", "to_frames", "write_mp4"]


def write_mp4(path: Path, frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> None:
    """Write a video; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode_mp4(frames_THWC, fps, crf=crf))


def to_frames(pixels_TCHW: Tensor) -> np.ndarray:
    """fp32 [-1, 1] to uint8 [T, H, W, 3]."""
    return ((pixels_TCHW + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
