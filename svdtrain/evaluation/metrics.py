"""The table of measures of one video. Installed packages bring others by the entry point `svdtrain.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

from svdtrain.evaluation import appearance, embeddings, flow
from svdtrain.foundation.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np

    from svdtrain.families.protocol import FamilySpec

OUTSIDE = "svdtrain.metrics"
"""The group of entry points, each of a Metric: FVD, VBench and others whose weights a package brings."""
Need = Literal["picture", "embeddings", "training frames", "motion buckets"]


@dataclass(frozen=True, eq=False)
class Footage:
    """A video, and what measures of it share."""

    frames_THWC: np.ndarray
    """uint8 RGB."""
    fps: float
    picture_HWC: np.ndarray | None = None
    """Of its size: what it was to begin with."""
    embeddings_TD: np.ndarray | None = None
    training_MP: np.ndarray | None = None
    """Training frames, as `thumbnails` makes them."""
    by_bucket: tuple[tuple[float, np.ndarray], ...] = ()
    """(motion bucket id, frames) of videos that differ from this one in nothing else."""

    @cached_property
    def flow(self) -> flow.Flow:
        """Computed once."""
        return flow.flow_of(self.frames_THWC)


@dataclass(frozen=True)
class Metric:
    """One measure of a video, beside the held-out clip whose first frame it was given."""

    name: str
    unit: str
    good: Literal["more", "less", "as the clips"]
    """Which numbers are better; `as the clips`: those that the held-out clips have themselves."""
    measure: Callable[[Footage, Footage], float | None]
    """Of (video, clip); None where it says nothing of this one."""
    needs: tuple[Need, ...] = ()
    of_clips: bool = True
    """It says something of a held-out clip, too."""


def _first_frame(video: Footage, _clip: Footage) -> float | None:
    picture = video.picture_HWC
    return None if picture is None else appearance.first_frame_similarity(video.frames_THWC[0], picture)


def _consistency(video: Footage, _clip: Footage) -> float | None:
    return None if video.embeddings_TD is None else embeddings.temporal_consistency(video.embeddings_TD)


def _copying(video: Footage, _clip: Footage) -> float | None:
    if video.training_MP is None or len(video.frames_THWC) < 2:
        return None
    return appearance.nearest_training_frame(appearance.thumbnails(video.frames_THWC), video.training_MP)


def _response(video: Footage, _clip: Footage) -> float | None:
    import numpy as np

    if len(video.by_bucket) < 2:
        return None
    motions = [flow.motion(flow.flow_of(frames), video.fps) for _, frames in video.by_bucket]
    return flow.motion_response(np.array([bucket for bucket, _ in video.by_bucket]), np.array(motions))


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "style_distance",
            "% of lightness",
            "less",
            lambda video, clip: appearance.style_distance(video.frames_THWC, clip.frames_THWC),
            of_clips=False,
        ),
        Metric("first_frame_ssim", "", "more", _first_frame, ("picture",), of_clips=False),
        Metric("temporal_consistency", "cosine", "as the clips", _consistency, ("embeddings",)),
        Metric("flicker", "% of grey", "as the clips", lambda video, _clip: flow.flicker(video.flow)),
        Metric("motion", "% of width/s", "as the clips", lambda video, _clip: flow.motion(video.flow, video.fps)),
        Metric(
            "motion_direction",
            "cosine",
            "more",
            lambda video, clip: flow.motion_direction(video.flow, clip.flow),
            of_clips=False,
        ),
        Metric("motion_response", "% of width/s per 100 ids", "more", _response, ("motion buckets",), of_clips=False),
        Metric(
            "colour_drift",
            "% of range",
            "as the clips",
            lambda video, _clip: appearance.colour_drift(video.frames_THWC),
        ),
        Metric("nearest_training_frame", "% of range", "as the clips", _copying, ("training frames",)),
    )
}
CMMD = "cmmd"
"""Of a set of videos, by embeddings.cmmd."""


def metric_names() -> list[str]:
    """Of this package, then of others."""
    return [CMMD, *METRICS, *(name for name in entry_points(group=OUTSIDE).names if name not in METRICS)]


def metric(name: str) -> Metric:
    """By name. UsageError with the nearest name where there is none."""
    if name in METRICS:
        return METRICS[name]
    for outside in entry_points(group=OUTSIDE, name=name):
        return outside.load()
    raise UsageError(f"metrics: no metric '{name}'", nearest(name, metric_names()))


def absent(names: Iterable[str], spec: FamilySpec, *, buckets: int, training: int) -> dict[str, str]:
    """Name -> why it cannot be measured. buckets: ids that each input is also sampled with; training: frames to compare."""
    lacks: dict[Need, str] = {}
    if not spec.needs_image:
        lacks["picture"] = f"{spec.name} is given no first frame"
    if not spec.embeds_images:
        lacks["embeddings"] = f"{spec.name} has no image encoder"
    if not training:
        lacks["training frames"] = "there are no training clips"
    if not spec.reads_motion:
        lacks["motion buckets"] = f"{spec.name} is told no motion bucket"
    elif buckets < 2:
        lacks["motion buckets"] = "motion_buckets=[60,127,200] samples each input so"
    needs = {name: ("embeddings",) if name == CMMD else metric(name).needs for name in names}
    return {name: lacks[need] for name, wanted in needs.items() for need in wanted if need in lacks}
