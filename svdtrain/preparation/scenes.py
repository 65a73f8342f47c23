"""Where a video cuts from one scene to the next, found by PySceneDetect's adaptive detector."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError
from av.video.stream import VideoStream
from scenedetect import AdaptiveDetector, FrameTimecode
from scenedetect.common import Timecode

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

LONGEST_SIDE = 256
SHORTEST_SCENE = 2
"""Frames. A cut that is missed costs more than a scene that is too short to use."""
ALIVE_EVERY = 64
"""Frames."""
# None of these can point at another file: a playlist or a script that is named .mp4 must not be followed.
SAFE = {"format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,gif,asf", "protocol_whitelist": "none"}
# A damaged stream must raise, not yield patched pictures.
STRICT = {"err_detect": "explode"}


def find_cuts(path: Path, name: str, alive: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds from the first frame to the first frame of each further scene, ascending.

    Hard cuts are found, slow fades are not. Frames are decoded one by one and reduced at once, so that memory does not
    grow with the video; `alive` is called now and then. DataError when it cannot be decoded to its end.
    """
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{name} is empty", "take it out of the folder")
    try:
        # A file, not its name: FFmpeg takes a name for an address when it looks like one.
        with path.open("rb") as file, av.open(file, "r", options=SAFE, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise DataError(f"{name} holds no video stream that can be read", "take it out of the folder")
            stream.codec_context.options = STRICT
            stream.thread_count = 1
            detector = AdaptiveDetector(min_scene_len=SHORTEST_SCENE)
            rate = stream.average_rate or Fraction(25)
            frames = _small_frames(container.decode(stream), stream.time_base or Fraction(1, 90_000), rate)
            cuts: list[FrameTimecode] = []
            for number, (moment, picture_HWC) in enumerate(frames):
                cuts += detector.process_frame(moment, picture_HWC)
                if number % ALIVE_EVERY == 0:
                    alive()
    except FFmpegError as error:
        raise DataError(f"{name} is damaged: {error.strerror}", "take it out of the folder, or mend it") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}", "check the path and its permissions") from error
    return [round(float(cut.seconds), 6) for cut in cuts]


def _small_frames(
    frames: Iterator[av.VideoFrame], time_base: Fraction, rate: Fraction
) -> Iterator[tuple[FrameTimecode, np.ndarray]]:
    """(time since the first frame, uint8 BGR [h, w, 3]), all of the first frame's reduced size."""
    first, size = None, (0, 0)
    for frame in frames:
        if frame.pts is None:
            continue
        if first is None:
            scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
            first, size = frame.pts, (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        small = frame.reformat(*size, format="bgr24", interpolation="AREA").to_ndarray()
        yield FrameTimecode(Timecode(frame.pts - first, time_base), rate), small
