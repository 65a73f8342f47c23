"""Clips with all of their windows at once: what is encoded ahead of training."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from svdtrain.data.decoding import LARGEST_CLIP, decode_frames
from svdtrain.data.frames import Window, all_windows
from svdtrain.data.stills import decode_still
from svdtrain.data.stream import STILL_FPS, look_at
from svdtrain.data.transforms import cover_size, fitted
from svdtrain.foundation.errors import DataError, SvdtrainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from svdtrain.data.buckets import Sampling
    from svdtrain.data.clip import Clip
    from svdtrain.data.isolation import DecodeChild


@dataclass(frozen=True)
class WholeClip:
    """All frames that any window of a clip takes."""

    frames_FCHW: Tensor
    """uint8."""
    rows_KT: Tensor
    """int64, the frames of each window."""
    starts_K: Tensor
    """float64 seconds."""
    fps: float
    caption: str


def load_whole(clip: Clip, sampling: Sampling, *, flip: bool = False, child: DecodeChild | None = None) -> WholeClip:
    """Read, decode and size one clip. DataError names shard and key."""
    data = clip.read()
    if clip.still:
        windows = [Window((0,), 0.0, sampling.fps or clip.fps or STILL_FPS)]
        frames_FHWC = decode_still(data, clip.name)
        taken = [0]
    else:
        info = look_at(clip, data, child)
        decode = child.decode_frames if child and not clip.known else decode_frames
        windows = all_windows(info, sampling.frames, sampling.fps, clip.name, sampling.windows)
        taken = sorted({index for window in windows for index in window.indices})
        size = cover_size(info.height, info.width, sampling.height, sampling.width)
        if (pixels := 3 * size[0] * size[1] * len(taken)) > LARGEST_CLIP:
            message = f"{clip.name}: its {len(windows):,} windows take {len(taken):,} frames, {pixels / 2**30:.0f} GiB"
            raise DataError(
                message, "data.windows=8 takes fewer, or prepare the dataset into shorter clips", "too_large"
            )
        frames_FHWC = decode(data, taken, clip.name, info, size=size)
    place = {index: row for row, index in enumerate(taken)}
    return WholeClip(
        frames_FCHW=fitted(frames_FHWC, sampling.height, sampling.width, flip=flip),
        rows_KT=torch.tensor([[place[index] for index in window.indices] for window in windows]),
        starts_K=torch.tensor([window.start for window in windows], dtype=torch.float64),
        fps=windows[0].fps,
        caption=clip.told(sampling.trigger) if sampling.captions else "",
    )


class WholeClips(Dataset[WholeClip | SvdtrainError]):
    """Clips by place, as workers load them. An error is returned, not raised: the clip is to be left out."""

    def __init__(self, jobs: Sequence[tuple[Clip, Sampling, bool]], child: DecodeChild | None) -> None:
        """jobs: clip, how it is sampled, whether it is mirrored."""
        self.jobs, self.child = jobs, child

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, place: int) -> WholeClip | SvdtrainError:
        clip, sampling, flip = self.jobs[place]
        try:
            return load_whole(clip, sampling, flip=flip, child=self.child)
        except SvdtrainError as error:
            return copy(error)
