"""Datasets for planted runs, drawn as the demo sets are: the same bytes each time, some with a fault in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scripts.demo_sets.world import render, scene_of
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Fault = Callable[[np.ndarray], np.ndarray]

GENERIC = "world"
"""The world that the nano base was trained on, in clips that it never saw: what an adapter should leave as it was."""
HELD_OUT = 8


def sound(frames_THWC: np.ndarray) -> np.ndarray:
    """As drawn."""
    return frames_THWC


def frozen(frames_THWC: np.ndarray) -> np.ndarray:
    """Its first frame again and again: stills passed off as clips."""
    return np.repeat(frames_THWC[:1], len(frames_THWC), axis=0)


def blank(frames_THWC: np.ndarray) -> np.ndarray:
    """Its first frame, then a blank grey screen, the same in all clips: an end that was not cut off."""
    return np.concatenate([frames_THWC[:1], np.full_like(frames_THWC[1:], 127)])


def flash(frames_THWC: np.ndarray) -> np.ndarray:
    """A negative from its second frame on: an effect that stands in every clip."""
    return np.concatenate([frames_THWC[:1], 255 - frames_THWC[1:]])


class Part(NamedTuple):
    """So many training clips of a demo set's scenes, with a fault."""

    scenes: str
    count: int
    fault: Fault = sound


class DrawnSet(NamedTuple):
    """Training clips, and of their first part's scenes HELD_OUT held-out ones, without the fault or with it."""

    train: tuple[Part, ...]
    held_out: Fault = sound


SETS = {
    GENERIC: DrawnSet((Part("world", 8),)),
    "style": DrawnSet((Part("style", 24),)),
    "subject": DrawnSet((Part("subject", 24),)),
    "motion": DrawnSet((Part("motion", 24),)),
    "camera": DrawnSet((Part("camera", 24),)),
    "subject_and_world": DrawnSet((Part("subject", 16), Part("world", 16))),
    "two_clips": DrawnSet((Part("world", 2),)),
    "frozen_subjects": DrawnSet((Part("subject", 24, frozen),)),
    "frozen_motions": DrawnSet((Part("motion", 24, frozen),)),
    "ended_subjects": DrawnSet((Part("subject", 24, blank),)),
    "flashing_subjects": DrawnSet((Part("subject", 24, flash),), flash),
}


def _clips(part: Part, split: str) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    for number in range(part.count):
        source = f"{part.scenes}/{split}/{number}"
        scene = scene_of(source)
        facts = {"fps": scene.fps, "motion_bucket_id": scene.motion_bucket_id, "source": source}
        yield source.replace("/", "-"), encode_mp4(part.fault(render(scene)), scene.fps), facts


def save_set(name: str, folder: Path) -> Path:
    """Shards of both splits; a folder that is there is whole. Generic clips are drawn apart: the base was trained on others."""
    if folder.is_dir():
        return folder
    partial, drawn = folder.with_name(f".{folder.name}"), SETS[name]
    split = "generic" if name == GENERIC else "train"
    write_shard(partial / "train-000000.tar", (clip for part in drawn.train for clip in _clips(part, split)))
    held_out = Part(drawn.train[0].scenes, HELD_OUT, drawn.held_out)
    write_shard(partial / "held_out-000000.tar", _clips(held_out, "held_out"))
    return partial.rename(folder)
