"""What an evaluation does: each adapter switched off and on over fixed clips, noise and seeds, one result at a time."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from svdtrain.adapters.pipelines import load_adapter, set_strength, unload_adapter
from svdtrain.evaluation.measuring import bank_of, embedded, measured
from svdtrain.evaluation.metrics import Footage
from svdtrain.evaluation.noise_grid import PreparedClip, losses_of, prepare
from svdtrain.evaluation.results import Results, key_of, unwritable
from svdtrain.foundation.errors import DataError
from svdtrain.generation.video_files import to_frames, write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from svdtrain.config.strengths import Strength
    from svdtrain.data.buckets import Sampling
    from svdtrain.data.clip import Clip
    from svdtrain.families.protocol import ModelFamily, Request
    from svdtrain.types import ClipBatch

CLIP, BASE = "held-out clip", "base"


@dataclass(frozen=True)
class Arm:
    """One of those that are compared: an adapter at a strength, or (strength 0) the base."""

    label: str
    adapter: Path
    """Its file; of the base, that of the adapter that is switched off."""
    sha256: str
    """Empty of the base, whatever is switched off."""
    strength: Strength
    step: int = 0
    of: str = ""
    """The arm whose earlier step this is: its losses alone are taken."""

    @property
    def slug(self) -> str:
        """As a folder."""
        return self.label.replace("/", "_")


@dataclass(frozen=True)
class LossClip:
    """A clip whose loss is taken."""

    group: str
    """held_out, training or generic."""
    number: int
    clip: Clip
    sampling: Sampling


@dataclass(frozen=True)
class Input:
    """A held-out clip, whose first frame and caption a video is made of."""

    number: int
    clip: Clip
    sampling: Sampling
    seed: int

    @property
    def name(self) -> str:
        """Of files."""
        return f"{self.number:04d}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All that is to be found."""

    arms: Sequence[Arm]
    """Those of one adapter beside each other."""
    loss_clips: Sequence[LossClip]
    sigmas: Sequence[float]
    inputs: Sequence[Input]
    metrics: Sequence[str]
    motion_buckets: Sequence[int]
    training: Sequence[tuple[Clip, Sampling]]
    """To find copies of."""
    decides: dict[str, Any] = field(default_factory=dict)
    """What else results depend on: the base, the sampler."""

    def loss_key(self, arm: Arm, one: LossClip) -> str:
        """Of the losses of a clip."""
        return key_of(
            self.decides["base"], arm.sha256, arm.strength.told, _mark(one.clip), asdict(one.sampling), self.sigmas
        )

    def video_key(self, arm: Arm | None, one: Input) -> str:
        """Of a video and its measures; without an arm, of the clip itself."""
        made_by = [arm.sha256, arm.strength.told, one.seed] if arm else []
        bank = [_mark(clip) for clip, _ in self.training]
        told = [_mark(one.clip), asdict(one.sampling), self.metrics, self.motion_buckets]
        return key_of(self.decides, made_by, told, bank)

    @property
    def video_arms(self) -> list[Arm]:
        """Whose videos are made."""
        return [arm for arm in self.arms if not arm.of]

    @property
    def clips(self) -> list[Input]:
        """Each input's clip once."""
        return list({one.number: one for one in reversed(self.inputs)}.values())[::-1]


def _mark(clip: Clip) -> list[object]:
    return [clip.key, clip.sha256, clip.size]


def loss_name(arm: Arm, one: LossClip) -> str:
    """Of its file."""
    return f"losses/{arm.slug}/{one.group}-{one.number:04d}"


def video_name(arm: Arm | None, one: Input) -> str:
    """Of its files."""
    return f"samples/{arm.slug}/{one.name}" if arm else f"samples/clips/{one.number:04d}"


class Worker:
    """Finds what is missing of its part of a plan, and of others after it: clips stay prepared."""

    def __init__(
        self,
        family: ModelFamily,
        results: Results,
        part: slice,
        load: Callable[[Clip, Sampling], ClipBatch],
        request_of: Callable[[ClipBatch, Input], Request],
        note: Callable[[str], None],
        busy: Callable[[str], object],
    ) -> None:
        """note: told what was done, arm by arm; busy: what is being done now."""
        self.family, self.results, self.part = family, results, range(10**9)[part]
        self.load, self.request_of, self.note, self.busy = load, request_of, note, busy
        self._prepared: dict[tuple[str, int], PreparedClip] = {}
        self._loaded: tuple[int, ClipBatch] | None = None

    def work(self, plan: Plan) -> None:
        """Clips that cannot be used are results, too: they are told at the end, and tried again the next time."""
        self.plan = plan
        self.loss_clips = [one for one in plan.loss_clips if one.number in self.part]
        self.inputs = [one for one in plan.inputs if one.number in self.part]
        numbers = {one.number for one in self.inputs}
        for one in self.plan.clips:
            if one.number in numbers and not self.found(video_name(None, one), self.plan.video_key(None, one), "mp4"):
                self._kept(video_name(None, one), self.plan.video_key(None, one), lambda one=one: self._clip(one))
        for adapter, group in groupby(self.plan.arms, key=lambda arm: arm.adapter):
            arms = list(group)
            todo = {arm.label: self._missing(arm) for arm in arms}
            if not any(any(both) for both in todo.values()):
                continue
            with _loaded(self.family, adapter):
                for arm in arms:
                    losses, videos = todo[arm.label]
                    set_strength(self.family.denoiser, spatial=arm.strength.spatial, temporal=arm.strength.temporal)
                    for one in losses:
                        self._kept(loss_name(arm, one), self.plan.loss_key(arm, one), lambda one=one: self._losses(one))
                    for one in videos:
                        name = video_name(arm, one)
                        self._kept(
                            name, self.plan.video_key(arm, one), lambda one=one, name=name: self._video(name, one)
                        )
                    if losses or videos:
                        self.note(f"{arm.label}: {len(losses)} losses, {len(videos)} videos")

    def found(self, name: str, key: str, beside: str = "") -> bool:
        """Whether a result stands, and the file beside it."""
        told = self.results.find(name, key, beside)
        return told is not None and "failed" not in told

    def _missing(self, arm: Arm) -> tuple[list[LossClip], list[Input]]:
        plan = self.plan
        losses = [one for one in self.loss_clips if not self.found(loss_name(arm, one), plan.loss_key(arm, one))]
        inputs = [] if arm.of else self.inputs
        return losses, [one for one in inputs if not self.found(video_name(arm, one), plan.video_key(arm, one), "mp4")]

    def _kept(self, name: str, key: str, find: Callable[[], dict[str, Any]]) -> None:
        self.busy(name)
        try:
            result = find()
        except DataError as error:
            result = {"failed": error.message}
        self.results.keep(name, key, result)

    def _losses(self, one: LossClip) -> dict[str, Any]:
        place = one.group, one.number
        with self._precision():
            if place not in self._prepared:
                self._prepared[place] = prepare(self.family, self.load(one.clip, one.sampling))
            losses_S = losses_of(self.family, self._prepared[place], self.plan.sigmas)[0]
        return {"clip": one.clip.key, "losses": losses_S.tolist()}

    def _clip(self, one: Input) -> dict[str, Any]:
        batch = self._batch(one)
        frames_THWC = to_frames(batch.pixels_BTCHW[0])
        self._write(video_name(None, one), frames_THWC, batch)
        clip = self._footage(frames_THWC, batch)
        return {"clip": one.clip.key, **measured(clip, clip, self.plan.metrics).told()}

    def _video(self, name: str, one: Input) -> dict[str, Any]:
        batch = self._batch(one)
        request = self.request_of(batch, one)
        (frames_THWC,) = self.family.sample([request])
        asked = [replace(request, motion_bucket_id=bucket) for bucket in self.plan.motion_buckets]
        others = zip(self.plan.motion_buckets, self.family.sample(asked), strict=True)
        clip = self._footage(to_frames(batch.pixels_BTCHW[0]), batch)
        picture_HWC = None if request.image is None else np.asarray(request.image)
        video = replace(self._footage(frames_THWC, batch), picture_HWC=picture_HWC, by_bucket=tuple(others))
        self._write(name, frames_THWC, batch)
        return {"clip": one.clip.key, "seed": request.seed, **measured(video, clip, self.plan.metrics).told()}

    def _footage(self, frames_THWC: np.ndarray, batch: ClipBatch) -> Footage:
        return Footage(
            frames_THWC,
            float(batch.fps_B[0]),
            embeddings_TD=embedded(self.family, frames_THWC),
            training_MP=self._bank if len(self._bank) else None,
        )

    @cached_property
    def _bank(self) -> np.ndarray:
        return bank_of(to_frames(self.load(*one).pixels_BTCHW[0]) for one in self.plan.training)

    def _batch(self, one: Input) -> ClipBatch:
        """Seeds of one input come one after the other."""
        if self._loaded is None or self._loaded[0] != one.number:
            self._loaded = one.number, self.load(one.clip, one.sampling)
        return self._loaded[1]

    def _write(self, name: str, frames_THWC: np.ndarray, batch: ClipBatch) -> None:
        try:
            write_mp4(self.results.folder / f"{name}.mp4", frames_THWC, float(batch.fps_B[0]))
        except OSError as error:
            raise unwritable(self.results.folder, error) from error

    def _precision(self) -> torch.autocast:
        weight = next(self.family.denoiser.parameters())
        return torch.autocast(weight.device.type, weight.dtype, enabled=weight.dtype != torch.float32)


@contextmanager
def _loaded(family: ModelFamily, adapter: Path) -> Iterator[None]:
    name = load_adapter(family.denoiser, adapter)
    try:
        yield
    finally:
        unload_adapter(family.denoiser, name)
