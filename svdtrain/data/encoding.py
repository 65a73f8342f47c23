"""Videos in the normal form that every reader seeks exactly: H.264 mp4 by PyAV. No ffmpeg binary is needed."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

# Without mbtree: its assembly reads memory nobody wrote, so that equal frames gave unequal bytes.
NORMAL_FORM = {"g": "24", "bf": "2", "flags": "+cgop", "x264-params": "open-gop=0:mbtree=0"}


class Mp4Writer:
    """One video, frame by frame: closed GOPs of 24, a constant frame rate, times that start at zero.

    No B-frame crosses a key frame. Odd heights and widths lose their last row or column (yuv420p). Used in a `with`,
    which frees the encoder; `finish` gives the bytes.
    """

    def __init__(self, height: int, width: int, fps: float, *, crf: int = 12) -> None:
        self.height, self.width = height - height % 2, width - width % 2
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        rate, options = Fraction(fps).limit_denominator(1001), {"crf": str(crf)} | NORMAL_FORM
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.height, self._stream.width = self.height, self.width
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1  # the same bytes on every machine

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def write(self, picture_HWC: np.ndarray) -> None:
        """The next frame: uint8 RGB [H, W, 3]."""
        even_HWC = np.ascontiguousarray(picture_HWC[: self.height, : self.width])
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even_HWC, format="rgb24")))

    def finish(self) -> bytes:
        """The whole file; nothing can be written after it."""
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()


def encode_mp4(frames_THWC: np.ndarray, fps: float, *, crf: int = 12) -> bytes:
    """The normal form of uint8 RGB frames [T, H, W, 3]."""
    assert frames_THWC.dtype == np.uint8
    assert frames_THWC.shape[3:] == (3,), frames_THWC.shape
    with Mp4Writer(frames_THWC.shape[1], frames_THWC.shape[2], fps, crf=crf) as writer:
        for picture_HWC in frames_THWC:
            writer.write(picture_HWC)
        return writer.finish()
