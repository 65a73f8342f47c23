"""`python -m svdtrain evaluate`: the base against adapters, on fixed clips, noise and seeds."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

import svdtrain
from svdtrain.adapters.fingerprint import fingerprint
from svdtrain.adapters.pipelines import load_adapter, unload_adapter
from svdtrain.commands.evaluate_report import tell, write
from svdtrain.commands.evaluated import Evaluated, arms_of, data_of, evaluated, model_of
from svdtrain.data.fixed import fixed_clips, read_fixed
from svdtrain.data.isolation import DecodeChild
from svdtrain.evaluation.metrics import CMMD, absent, metric, metric_names
from svdtrain.evaluation.noise_grid import levels_of
from svdtrain.evaluation.results import Results
from svdtrain.evaluation.summary import Found, summarised
from svdtrain.evaluation.work import Input, LossClip, Plan, Worker
from svdtrain.families.build import build_family
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import DataError, UsageError
from svdtrain.foundation.hardware import DTYPES, choose_device, choose_precision, local_rank
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.foundation.space import refuse_unwritable
from svdtrain.training import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.config.evaluation import EvaluateConfig
    from svdtrain.config.schema import ModelConfig
    from svdtrain.data.clip import Clip
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.families.protocol import ModelFamily, Request
    from svdtrain.types import ClipBatch

log = logging.getLogger(__name__)


def run(config: EvaluateConfig, overrides: list[str]) -> None:
    """Find what is missing of this process's part; where nothing is missing any more, put all together."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    quiet_packages()
    found = [evaluated(place) for place in config.adapters or [config.adapter or ""]]
    number, parts = _part(config)
    model = model_of(config, overrides, found[0])
    for name in set(config.metrics or ()) - {CMMD}:
        metric(name)  # refused by its name before anything is loaded
    out = Path(config.out) if config.out else (found[0].run_dir or found[0].file.parent) / "evaluation"
    refuse_unwritable(out)
    marks = [mark for one in found for mark in one.marks()]

    data = _stream(config, model, found[0], None)
    family, device = build_family(model), choose_device(config.device)
    base = fingerprint(family.denoiser)
    for one in found:  # an adapter of another base is told before anything is computed
        unload_adapter(family.denoiser, load_adapter(family.denoiser, one.file))
    if device == "cuda":
        torch.cuda.set_device(local_rank())
    family.to(device, DTYPES[choose_precision("auto", device)])
    plan, missing_metrics = _plan(config, model, found, data, family, base, marks)
    for mark in marks:
        log.warning("%s", mark)

    child = DecodeChild(data.deadline) if data.deadline else None
    load: Callable[..., ClipBatch] = lambda clip, sampling: read_fixed(clip, sampling, child)  # noqa: E731
    results = Results(out)
    with console.status("") as status:
        requests, part = _requests(model, config), slice(number, None, parts)
        Worker(family, plan, results, part, load, requests, console.print, status.update).work()
    if child:
        child.close()
    _finish(console, plan, results, missing_metrics, _about(config, model, found, data, marks))
    for one in found:
        if one.damage:
            raise UsageError(f"{one.place}: damaged, {one.damage}", "its adapter was evaluated all the same")


def _part(config: EvaluateConfig) -> tuple[int, int]:
    """(number, of how many) this process is."""
    told = config.shard or f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
    number, parts = (int(word) if word.isdigit() else -1 for word in told.split("/"))
    if not 0 <= number < parts:
        raise UsageError(f"RANK of WORLD_SIZE: {told} is no part", "shard=0/1")
    return number, parts


def _stream(config: EvaluateConfig, model: ModelConfig, first: Evaluated, source: str | None) -> ClipDataModule:
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
        other = _stream(config, model, found[0], config.generic)
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
        arms=arms_of(config, found),
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


def _finish(
    console: Console, plan: Plan, results: Results, absent_metrics: dict[str, str], about: dict[str, object]
) -> None:
    found = Found(plan, results)
    if found.waits:
        waiting = sum(reason == "not there yet" for reason in found.missing.values())
        console.print(f"{waiting} results are missing yet; the process that finds the last, or this command, tells all")
        return
    told = summarised(found, absent_metrics, about)
    write(results.folder, plan, told, found)
    tell(console, results.folder, told)
    if found.missing:
        name, reason = next(iter(found.missing.items()))
        message = f"{len(found.missing)} results are missing, first {name}: {reason}"
        raise DataError(message, "mend the clip, then the same command again; what there is stands in evaluation.json")
