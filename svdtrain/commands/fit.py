"""`python -m svdtrain fit`: the run as a story."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import svdtrain
from svdtrain.adapters.files import save_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.inject import adapter_layers, adapter_parameters, peft_config
from svdtrain.config.changes import refuse_changes
from svdtrain.families.build import build_family, refuse_sizes
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import ModelError, UsageError
from svdtrain.foundation.hardware import is_first_rank
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.reporting.run_lock import locked
from svdtrain.reporting.run_record import RunRecord, newest_run, refuse_taken
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.callbacks.position import StreamPosition
from svdtrain.training.callbacks.progress import StepProgress
from svdtrain.training.callbacks.sample import SampleVideos
from svdtrain.training.callbacks.save import SaveCheckpoints
from svdtrain.training.callbacks.stop import GracefulStop
from svdtrain.training.callbacks.validate import SigmaGridValidation
from svdtrain.training.checkpoint import about_checkpoint, newest_whole, remove_staged, step_of
from svdtrain.training.latents import find_latents
from svdtrain.training.loggers import build_loggers

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

    from svdtrain.adapters.spec import AdapterInfo
    from svdtrain.config.schema import FitConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.families.protocol import ModelFamily

log = logging.getLogger(__name__)


def run(config: FitConfig, overrides: list[str]) -> int:
    """Train, look, save; the exit code is 143, 130 or 75 after a stop by signal."""
    console = Console(quiet=not is_first_rank())
    quiet_packages()
    with ExitStack() as held:
        return _run(config, overrides, console, held)


def _run(config: FitConfig, overrides: list[str], console: Console, held: ExitStack) -> int:
    going_on = _resumed(config)
    if going_on and is_first_rank():
        refuse_changes(RunRecord.reopen(going_on).config(), config.model_dump(mode="json"), config.change)
        held.enter_context(locked(going_on))
    data = build.build_data(config)
    data.setup("fit")
    family = build_family(config.model)
    refuse_sizes(family, data.sizes)
    base_fingerprint = fingerprint(family.denoiser)
    module = build.build_module(config, family)
    data.stream.latents = find_latents(config, family, data.stream)
    module.encoded_ahead = data.stream.latents is not None
    record = _open_run(config, going_on, overrides, held)
    checkpoint = _checkpoint_of(config, record, base_fingerprint)
    first_step, state_before = step_of(checkpoint) if checkpoint else 0, record.fields["state"]
    record.update(state="running")
    data.bad_samples.write_to(record.run_dir / "bad_samples.jsonl")

    held_out = data.held_out(config.validation.clips)
    looks = held_out[: config.validation.sample_inputs]
    truths = [build.to_frames(clip.pixels_BTCHW[0]) for clip in looks]
    requests = build.requests_from(config.model, looks, config.validation.sampling_steps, config.validation.sample_seed)
    average = WeightAverage(config.optimizer.ema_decay)
    progress = StepProgress(console, config.trainer.log_every)
    validation = SigmaGridValidation(held_out, config.validation.sigmas, config.validation.every, average)
    samples = SampleVideos(record.run_dir, requests, truths, config.validation.sample_every, average)
    about = build.adapter_info(config, base_fingerprint, svdtrain.__version__, data)
    write_result = partial(_write_result, config, family, about, validation, record.run_dir)
    save = SaveCheckpoints(
        record.run_dir, config.trainer.save_every, config.trainer.keep_checkpoints, average, write_result
    )
    stop = GracefulStop()
    settings = config.model_dump(mode="json")
    loggers = build_loggers(
        config.logger.kind, config.logger.project, config.name, record.run_dir, first_step, settings, console
    )
    callbacks: list[Callback] = [StreamPosition(data), stop, progress, average, validation, samples, save]
    told = {"base": base_fingerprint, "dataset": data.describe().fingerprint, "world_size": config.trainer.devices}
    trainer = build.build_trainer(config, loggers, callbacks, told | {"versions": record.fields["versions"]})

    _introduce(console, config, family, data, record)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)
    except BaseException:  # a resume that was refused leaves the run as it was
        record.update(state="failed" if trainer.global_step > first_step or not checkpoint else state_before)
        raise
    record.update(
        state="stopped" if stop.exit_code else "done",
        step=trainer.global_step,
        speed=progress.summary(module),
        validation_ratios=validation.ratios,
        dataset=asdict(data.describe()),
        bad_samples=dict(data.bad_samples.reasons),
    )
    _tell(console, config, record, validation, stop)
    # Of ranks that Lightning started itself, any code but 0 would have it kill the first one.
    return (stop.exit_code or 0) if is_first_rank() else 0


def _introduce(
    console: Console, config: FitConfig, family: ModelFamily, data: ClipDataModule, record: RunRecord
) -> None:
    trained = sum(p.numel() for p in family.denoiser.parameters() if p.requires_grad)
    summary = data.describe()
    clips = (
        "clips as they come (not exactly resumable)" if summary.train_clips is None else f"{summary.train_clips} clips"
    )
    console.print(
        f"{config.name}: {config.model.name} ({config.model.licence}), {trained:,} trained parameters; "
        f"{clips} and {summary.held_out_clips} held out",
        soft_wrap=True,
    )
    if latents := data.stream.latents:
        console.print(f"encoded before, in {latents.folder}", highlight=False, soft_wrap=True)
    console.print(f"run folder {record.run_dir}", highlight=False)


def _open_run(config: FitConfig, going_on: Path | None, overrides: list[str], held: ExitStack) -> RunRecord:
    """A new run folder, held, or the one to go on with."""
    inherited = os.environ.get("SVDTRAIN_RUN_DIR") if int(os.environ.get("LOCAL_RANK", "0")) > 0 else None
    if inherited:
        return RunRecord.reopen(Path(inherited), writes=False)
    if going_on:
        record = RunRecord.reopen(going_on, writes=is_first_rank())
        remove_staged(going_on)
    elif config.run_dir:
        refuse_taken(Path(config.run_dir))
        held.enter_context(locked(Path(config.run_dir)))
        record = RunRecord.create(config.name, config.run_dir, config.model_dump(mode="json"), overrides, is_held=True)
    else:
        record = RunRecord.create(config.name, None, config.model_dump(mode="json"), overrides)
        held.enter_context(locked(record.run_dir))
    os.environ["SVDTRAIN_RUN_DIR"] = str(record.run_dir)  # ranks that Lightning starts share the folder
    return record


def _resumed(config: FitConfig) -> Path | None:
    """The folder of the run that is to go on: that of `resume`, or a run_dir that holds a run."""
    if config.resume is not None:
        return newest_run(config.name) if config.resume == "auto" else Path(config.resume)
    here = Path(config.run_dir) if config.run_dir else None
    return here if here and (here / "run.json").is_file() and (here / "run.json").stat().st_size else None


def _checkpoint_of(config: FitConfig, record: RunRecord, base: str) -> Path | None:
    """The newest whole checkpoint of a run that goes on with these settings, on this base."""
    newest, passed_over = newest_whole(record.run_dir)
    if not newest and not passed_over:
        return None
    for line in passed_over:
        log.warning("%s", line)
    if newest and step_of(newest) >= config.trainer.max_steps:
        raise UsageError(
            f"resume={record.run_dir}: the run is complete at step {step_of(newest)}",
            f"raise trainer.max_steps (now {config.trainer.max_steps}) to train on",
        )
    if newest and (odd := differences(str(about_checkpoint(newest).get("base")), base)):
        raise ModelError(f"{newest}: it was trained on another base: {odd}", "resume with the model of the run")
    return newest


def _write_result(
    config: FitConfig,
    family: ModelFamily,
    about: AdapterInfo,
    validation: SigmaGridValidation,
    run_dir: Path,
    step: int,
) -> None:
    """RUN/adapter (and RUN/adapters/step-000500), or RUN/denoiser after full fine-tuning."""
    if config.adapter.kind == "full":
        family.denoiser.save_pretrained(run_dir / "denoiser")  # type: ignore[operator]
        return
    info = replace(about, steps=str(step), results=validation.in_short())
    settings = peft_config(build.adapter_spec(config, family.spec)).to_dict()
    settings["target_modules"] = sorted({name for name, _ in adapter_layers(family.denoiser)})
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}
    kept = [run_dir / "adapters" / f"step-{step:06d}"] if config.trainer.keep_adapters else []
    for folder in (run_dir / "adapter", *kept):
        save_adapter(folder, tensors, settings, info)


def _tell(
    console: Console, config: FitConfig, record: RunRecord, validation: SigmaGridValidation, stop: GracefulStop
) -> None:
    run_dir, speed = record.run_dir, record.fields["speed"]
    if bad := record.fields["bad_samples"]:
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in bad.items())
        console.print(f"bad samples    replaced: {counts}; see {run_dir / 'bad_samples.jsonl'}", highlight=False)
    if stop.exit_code:
        console.print(
            f"stopped at step {record.fields['step']}; go on with: python -m svdtrain fit "
            f"{' '.join(record.fields['overrides'])} resume={run_dir}",
            highlight=False,
            soft_wrap=True,
        )
        return
    ratio = validation.ratios[max(validation.ratios)]
    console.print(
        f"held-out loss is {ratio:.2f} of the base's; {speed['steps_per_second']:.2f} steps/s, "
        f"{speed['clips_per_second']:.2f} clips/s, {speed['share_outside_denoiser']:.0%} of the time outside the denoiser"
    )
    if config.adapter.kind == "full":
        console.print(f"denoiser       {run_dir / 'denoiser'}", highlight=False)
        return
    if config.validation.sample_inputs:
        console.print(f"before/after   {run_dir / 'before_after.mp4'}", highlight=False)
        console.print(f"contact sheet  {run_dir / 'contact_sheet.png'}", highlight=False)
    console.print(f"adapter        {run_dir / 'adapter' / 'adapter_model.safetensors'}", highlight=False)
    spec = spec_of(config.model.family)
    told = " ".join(["image=PICTURE"] * spec.needs_image + ["prompt=TEXT"] * spec.needs_text)
    console.print(
        f"use it         python -m svdtrain generate adapter={run_dir} {told} out=video.mp4",
        highlight=False,
        soft_wrap=True,
    )
