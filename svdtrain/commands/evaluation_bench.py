"""What all arms of an evaluation share: the model on its device, the clips, the plan, the folder of results."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

import svdtrain
from svdtrain.adapters.fingerprint import fingerprint
from svdtrain.adapters.pipelines import load_adapter, unload_adapter
from svdtrain.commands.evaluated import Evaluated, data_of, model_of
from svdtrain.data.fixed import fixed_clips, read_fixed
from svdtrain.data.isolation import DecodeChild
from svdtrain.evaluation.metrics import CMMD, absent, metric, metric_names
from svdtrain.evaluation.noise_grid import levels_of
from svdtrain.evaluation.results import Results
from svdtrain.evaluation.summary import Found
from svdtrain.evaluation.work import Input, LossClip, Plan, Worker
from svdtrain.families.build import build_family
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import DataError, UsageError
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision, local_rank
from svdtrain.foundation.space import refuse_unwritable
from svdtrain.training import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from svdtrain.config.evaluation import EvaluateConfig
    from svdtrain.config.schema import ModelConfig
    from svdtrain.data.clip import Clip
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.evaluation.work import Arm
    from svdtrain.families.protocol import ModelFamily, Request
    from svdtrain.types import ClipBatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """Ready to find what arms do."""

    plan: Plan
    """Without arms."""
    absent: dict[str, str]
    """Metrics that cannot be had, and why."""
    results: Results
    family: ModelFamily
    about: dict[str, object]
    """What stands at the head of what is written."""
    _worker: Worker

    def found(self, arms: Sequence[Arm], *, videos: bool = True) -> Found:
        """Their results; what is missing of this process's part is found now."""
        plan = replace(self.plan, arms=arms, inputs=self.plan.inputs if videos else [])
        self._worker.work(plan)
        return Found(plan, self.results)


@contextmanager
def opened(
    console: Console,
    config: EvaluateConfig,
    overrides: list[str],
    found: list[Evaluated],
    results: Results,
    part: slice = slice(None),
) -> Iterator[Bench]:
    """All loaded, each adapter tried on the model once: one of another base is told before anything is computed."""
    model = model_of(config, overrides, found[0])
    for name in set(config.metrics or ()) - {CMMD}:
        metric(name)  # refused by its name before anything is loaded
    refuse_unwritable(results.folder)
    marks = [mark for one in found for mark in one.marks()]

    data = stream_of(config, model, found[0], None)
    family, device = build_family(model), choose_device(config.device)
    base = fingerprint(family.denoiser)
    for one in found:
        unload_adapter(family.denoiser, load_adapter(family.denoiser, one.file))
    if device == "cuda":
        torch.cuda.set_device(local_rank())
    family.to(device, DTYPES[choose_precision("auto", device)])
    plan, missing_metrics = _plan(config, model, found, data, family, base, marks)
    for mark in marks:
        log.warning("%s", mark)

    child = DecodeChild(data.deadline) if data.deadline else None
    load: Callable[..., ClipBatch] = lambda clip, sampling: read_fixed(clip, sampling, child)  # noqa: E731
    with console.status("") as status:
        worker = Worker(family, results, part, load, _requests(model, config), console.print, status.update)
        try:
            yield Bench(plan, missing_metrics, results, family, _about(config, model, found, data, marks), worker)
        finally:
            if child:
                child.close()


def refuse_missing(found: Found, file: str) -> None:
    """Raise DataError, when all is written, for clips that could not be used."""
    if found.missing:
        name, reason = next(iter(found.missing.items()))
        message = f"{len(found.missing)} results are missing, first {name}: {reason}"
        raise DataError(message, f"mend the clip, then the same command again; what there is stands in {file}")


def stream_of(config: EvaluateConfig, model: ModelConfig, first: Evaluated, source: str | None) -> ClipDataModule:
    """The clips. source: where from, instead."""
    return build.build_stream(data_of(config, model, first, source), model, seed=0, steps=1, accumulate=1)


def _plan(
    config: EvaluateConfig,
    model: ModelConfig,
    found: list[Evaluated],
    data: ClipDataModule,
    family: ModelFamily,
    base: str,
    marks: list[str],
) -> tuple[Plan, dict[str, str]]:
    """All that is to be found, and why some metrics cannot be."""
    sampling, manifest = data.sampling, data.manifest
    held_out = fixed_clips(manifest.held_out, config.clips)
    training = fixed_clips(manifest.train, config.training_clips)
    shown = fixed_clips(manifest.held_out, config.inputs)
    if not config.data and found[0].info.dataset not in ("", manifest.fingerprint):
        marks.append(f"{data.source}: not what {found[0].place} was trained on: it may have seen these held-out clips")
    groups: dict[str, list[Clip]] = {"held_out": held_out, "training": training}
    samplings = dict.fromkeys(groups, sampling)
    if config.generic:
        other = stream_of(config, model, found[0], config.generic)
        groups["generic"] = fixed_clips(other.manifest.train, config.generic_clips)
        samplings["generic"] = other.sampling
    bank = fixed_clips(manifest.train, config.copies_of if config.inputs else 0)
    names = config.metrics if config.metrics is not None else metric_names()
    reasons = absent(names, family.spec, buckets=len(config.motion_buckets), training=len(bank))
    if config.metrics is not None and reasons:
        name, reason = next(iter(reasons.items()))
        raise UsageError(
            f"metrics: {name} cannot be measured: {reason}", "leave it out, or metrics=null for all others"
        )
    asked = {"frames": model.frames, "height": model.height, "width": model.width, "guidance": model.guidance}
    return Plan(
        arms=[],
        loss_clips=[
            LossClip(group, place, clip, samplings[group])
            for group, clips in groups.items()
            for place, clip in enumerate(clips)
        ],
        sigmas=config.sigmas or levels_of(family.objective),
        inputs=[Input(place, clip, sampling, seed) for place, clip in enumerate(shown) for seed in config.seeds],
        metrics=[name for name in names if name not in reasons] if config.inputs else [],
        motion_buckets=config.motion_buckets if spec_of(model.family).reads_motion else [],
        training=[(clip, sampling) for clip in bank],
        decides={"base": base, "steps": config.steps or model.sampling_steps, **asked},
    ), reasons if config.inputs else {}


def _requests(model: ModelConfig, config: EvaluateConfig) -> Callable[[ClipBatch, Input], Request]:
    """As in the previews of a fit: seeds count up from input to input."""

    def request_of(batch: ClipBatch, one: Input) -> Request:
        (request,) = build.requests_from(model, [batch], config.steps or model.sampling_steps, one.seed + one.number)
        return request if spec_of(model.family).needs_image else replace(request, image=None)

    return request_of


def _about(
    config: EvaluateConfig, model: ModelConfig, found: list[Evaluated], data: ClipDataModule, marks: list[str]
) -> dict[str, object]:
    adapters = [{"place": one.place, "recipe": one.info.recipe, "steps": one.info.steps} for one in found]
    settings = config.model_dump(mode="json", exclude={"model", "shard", "device", "privacy", "out"})
    return {
        "svdtrain": svdtrain.__version__,
        "model": model.name,
        "adapters": adapters,
        "data": {"source": str(data.source), **asdict(data.describe())},
        "settings": settings,
        "marks": marks,
    }
