"""Videos as files: H.264 mp4 in the normal form of data/encoding.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.data.encoding import encode_mp4
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = ["encode_mp4", "write_mp4"]


def write_mp4(path: Path, frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> None:
    """Write a video; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode_mp4(frames_THWC, fps, crf=crf))
