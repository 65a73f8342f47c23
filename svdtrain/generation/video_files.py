"""Videos as files: H.264 mp4 by PyAV. No ffmpeg binary is needed."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path


def encode_mp4(frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> bytes:
    """H.264 bytes of uint8 RGB frames [T, H, W, 3]: closed GOPs, constant frame rate.

    The stream has the normal form that every reader seeks exactly: no B-frame crosses a key frame, timestamps start at
    zero. Odd heights and widths lose their last row or column (yuv420p).
    """
    assert frames_THWC.dtype == np.uint8
    assert frames_THWC.shape[3:] == (3,), frames_THWC.shape
    height, width = (side - side % 2 for side in frames_THWC.shape[1:3])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # Without mbtree: its assembly reads memory nobody wrote, so that equal frames gave unequal bytes.
        options = {"crf": str(crf), "g": "24", "bf": "2", "flags": "+cgop", "x264-params": "open-gop=0:mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the same bytes on every machine
        for frame in np.ascontiguousarray(frames_THWC[:, :height, :width]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_mp4(path: Path, frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> None:
    """Write a video; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode_mp4(frames_THWC, fps, crf=crf))
