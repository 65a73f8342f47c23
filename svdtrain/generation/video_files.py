"""Videos as files: H.264 mp4 by PyAV, and contact sheets as PNG. No ffmpeg binary is needed."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def encode_mp4(frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> bytes:
    """H.264 bytes of uint8 RGB frames [T, H, W, 3]: closed GOPs, constant frame rate.

    The stream has the normal form that every reader seeks exactly: no B-frame crosses a key frame, timestamps start at
    zero. Height and width must be even (yuv420p).
    """
    assert frames_THWC.dtype == np.uint8 and frames_THWC.ndim == 4 and frames_THWC.shape[-1] == 3, frames_THWC.shape
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(crf), "g": "24", "bf": "2", "flags": "+cgop", "x264-params": "open-gop=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the same bytes on every machine
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def contact_sheet(videos: list[np.ndarray], *, zoom: int = 1, gap: int = 2) -> np.ndarray:
    """One uint8 picture [H, W, 3]: a row per video, its frames from left to right."""
    rows = []
    for frames_THWC in videos:
        big = frames_THWC.repeat(zoom, axis=1).repeat(zoom, axis=2)
        big = np.pad(big, ((0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
        rows.append(np.concatenate(list(big), axis=1))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def write_png(path: Path, picture_HWC: np.ndarray) -> None:
    """Write a uint8 RGB picture."""
    from PIL import Image

    Image.fromarray(picture_HWC).save(path)
