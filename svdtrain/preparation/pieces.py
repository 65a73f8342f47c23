"""Where a video is cut: at its scene cuts, then into pieces of one length, sampled by time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

CUT_SLACK = 1e-3
"""Seconds: a cut and the frame it stands at are rounded differently."""


@dataclass(frozen=True)
class Piece:
    """Frames of one video that may become a clip."""

    places: tuple[int, ...]
    """In display order, ascending; a frame repeats where the video has none nearer."""
    start: float
    """Seconds from the video's first frame."""
    end: float

    @property
    def repeated(self) -> float:
        """Share of its frames that show the same as the one before."""
        return 1 - len(set(self.places)) / len(self.places)


def plan(times_T: np.ndarray, cuts: Sequence[float], fps: float, length: int) -> list[Piece]:
    """Pieces of at most `length` frames, 1/fps apart, none across a cut; together they tell the whole video.

    times_T: seconds of every frame since the first, ascending; cuts: seconds of each further scene's first frame.
    """
    places = np.searchsorted(times_T, np.asarray(cuts, np.float64) - CUT_SLACK).tolist()
    edges = sorted({0, len(times_T), *(place for place in places if 0 < place < len(times_T))})
    return [piece for first, after in pairwise(edges) for piece in _scene(times_T, first, after, fps, length)]


def _scene(times_T: np.ndarray, first: int, after: int, fps: float, length: int) -> list[Piece]:
    """The pieces of the frames from `first` up to `after`: for each moment the nearest of them."""
    scene_T = times_T[first:after]
    start = float(scene_T[0])
    moments_T = start + np.arange(int((scene_T[-1] - start) * fps + 1.25)) / fps
    places = first + np.searchsorted((scene_T[1:] + scene_T[:-1]) / 2, moments_T)
    pieces: list[Piece] = []
    for first_moment in range(0, len(places), length):
        chosen = places[first_moment : first_moment + length].tolist()
        end = start + (first_moment + len(chosen)) / fps
        pieces.append(Piece(tuple(chosen), round(start + first_moment / fps, 6), round(end, 6)))
    return pieces
