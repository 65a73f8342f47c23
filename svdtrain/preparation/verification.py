"""A finished clip is read back by both readers, bit for bit, before it may be called verified."""

from __future__ import annotations

from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.data.decoding import by_decord, every_frame, probe
from svdtrain.preparation.records import UnusableSource

if TYPE_CHECKING:
    from svdtrain.data.decoding import VideoInfo

GROUP = 24
"""Frames that are compared at once, each group by a fresh reader that has to seek: as many as from key to key."""
MOST_BYTES = 128 << 20
"""Of pixels in memory, from each reader."""


def read_back(data: bytes, frames: int, name: str) -> bool:
    """Whether decord at random access gave bit for bit what PyAV gave in sequence; False: decord is not installed.

    UnusableSource when they differ, or when `frames` frames are not there; DataError when it is damaged.
    """
    info = probe(data, name)
    if info.doubt or info.frames != frames:
        detail = info.doubt or f"{frames} frames were written, {info.frames} are read"
        raise UnusableSource("readers_disagree", f"{name}: {detail}")
    decord = _decord_installed()
    group = min(GROUP, max(1, MOST_BYTES // (3 * info.height * info.width)))
    in_order = (picture_HWC for _, picture_HWC in every_frame(data, name))
    for first in range(0, frames, group):
        expected = list(islice(in_order, group))
        if len(expected) < min(group, frames - first):
            raise UnusableSource("readers_disagree", f"{name}: frame {first + len(expected)} is missing")
        if decord:
            _compare(data, first, expected, info, name)
    return decord


def _compare(data: bytes, first: int, expected: list[np.ndarray], info: VideoInfo, name: str) -> None:
    """Every second frame, then back to the others between them."""
    places = [first + place for start in (1, 0) for place in range(start, len(expected), 2)]
    frames_THWC = by_decord(data, places, info, None)
    if frames_THWC is None:
        raise UnusableSource("readers_disagree", f"{name}: decord does not read it")
    for place, picture_HWC in zip(places, frames_THWC, strict=True):
        if not np.array_equal(picture_HWC, expected[place - first]):
            raise UnusableSource("readers_disagree", f"{name}: frame {place} differs between PyAV and decord")


def _decord_installed() -> bool:
    try:
        import_module("decord")
    except (ImportError, OSError):
        return False
    return True
