"""`python -m svdtrain fit` in one process: the run as a story."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from svdtrain.acceleration.attention import attention_kernels
from svdtrain.acceleration.recompute import RUNGS
from svdtrain.adapters.fingerprint import fingerprint
from svdtrain.commands.fit_parts import assemble
from svdtrain.commands.fit_report import introduce, tell
from svdtrain.commands.fit_tracking import track
from svdtrain.commands.relief import ask
from svdtrain.commands.report import write_page
from svdtrain.commands.run_folder import checkpoint_of, going_on, opened
from svdtrain.families.build import build_family, refuse_sizes
from svdtrain.foundation.errors import LostRank, shown
from svdtrain.foundation.hardware import hardware, is_first_rank, training_device
from svdtrain.foundation.out_of_memory import is_out_of_memory
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.launching.launcher import leave_with_launcher
from svdtrain.launching.notice import Notice
from svdtrain.launching.pulse import BEATS_VARIABLE, Pulse
from svdtrain.launching.slurm import queue_again
from svdtrain.launching.watchdog import Watchdog
from svdtrain.planning.ladder import settle, with_rung
from svdtrain.planning.relief import explain
from svdtrain.reporting.run_record import versions
from svdtrain.training import build
from svdtrain.training.callbacks.position import StreamPosition
from svdtrain.training.callbacks.pulse import PulseMarks
from svdtrain.training.checkpoint import FolderCheckpoint, step_of
from svdtrain.training.latents import find_latents
from svdtrain.training.loggers import build_loggers
from svdtrain.training.ranks import joined, lost_ranks_told, meet, of_all, rank

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

    from svdtrain.config.schema import FitConfig
    from svdtrain.config.training import TrainerConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.foundation.errors import SystemFault
    from svdtrain.planning.ladder import Rung
    from svdtrain.reporting.run_record import RunRecord
    from svdtrain.training.module import FineTuning


def run(config: FitConfig, overrides: list[str]) -> int:
    """Train, look, save; the exit code is 143, 130 or 75 after a stop by signal."""
    console = Console(quiet=not is_first_rank())
    quiet_packages()
    with ExitStack() as held:
        pulse = None
        if beats := os.environ.get(BEATS_VARIABLE):
            leave_with_launcher()
            pulse = held.enter_context(_pulse(config.trainer.watchdog, beats))
        notice = held.enter_context(Notice(speaks=is_first_rank()).heard())
        held.enter_context(joined(training_device(config.trainer.device, config.trainer.precision)))
        return _run(config, overrides, console, held, notice, pulse)


def _run(
    config: FitConfig, overrides: list[str], console: Console, held: ExitStack, notice: Notice, pulse: Pulse | None
) -> int:
    folder = going_on(config, held)
    data = build.build_data(config)
    data.setup("fit")
    rung = _agreed(settle(config, build.build_module, sizes=data.sizes), config, data)
    given, config = config, with_rung(config, rung.name) if rung else config
    family = build_family(config.model)
    refuse_sizes(family, data.sizes)
    base_fingerprint = fingerprint(family.denoiser)
    module = build.build_module(config, family)
    data.stream.latents = find_latents(config, family, data.stream)
    module.encoded_ahead = data.stream.latents is not None
    record = opened(given, folder, overrides, held)
    checkpoint = checkpoint_of(config, record, base_fingerprint, encoded_ahead=module.encoded_ahead)
    if checkpoint:  # before anything is written
        data.changes(FolderCheckpoint().load_checkpoint(checkpoint)[type(data).__qualname__], config.trainer.ranks)
    first_step, state_before = step_of(checkpoint) if checkpoint else 0, record.fields["state"]
    _begun(record, data, first_step, _foreknown(config, family, rung))

    parts = assemble(config, data, family, console, record, notice, base_fingerprint)
    marks = PulseMarks(_settled(pulse, record.run_dir, config.trainer, held))
    tracked = track(config, data, record, parts, base_fingerprint, console)
    callbacks: list[Callback] = [StreamPosition(data), marks, *parts.in_order, tracked]
    loggers = build_loggers(record.run_dir, config.logger.kind, tracked.trackers)
    trainer = build.build_trainer(config, loggers, callbacks, _about(config, data, module, base_fingerprint))

    try:
        notice.trains = True  # from here on, nothing is cut short by a first signal
        meet()
        introduce(console, config, family, data, record, rung)
        with lost_ranks_told(lambda: f" at step {trainer.global_step}"), attention_kernels(config.speed.attention):
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)
    except BaseException as error:  # a resume that was refused leaves the run as it was
        ended = "stopped" if notice.received else "failed"
        record.update(state=ended if trainer.global_step > first_step or not checkpoint else state_before)
        record.events.add("stop" if notice.received else "fail", trainer.global_step, why=shown(str(error), 200))
        if is_out_of_memory(error):
            raise _out_of_memory(error, config, module, data) from error
        raise
    stopped = notice.exit_code if trainer.global_step < trainer.max_steps else 0  # in the last step it is too late
    record.update(
        state="stopped" if stopped else "done",
        step=trainer.global_step,
        speed=parts.progress.summary(module),
        validation_ratios=parts.validation.ratios,
        verdict=asdict(parts.validation.verdict()),
        dataset=asdict(data.describe()),
        bad_samples=dict(data.bad_samples.reasons),
        skipped_steps=parts.guard.skipped,
        loss_spikes=parts.guard.spikes,
        best_checkpoint=best.name if (best := parts.save.best()) else None,
        best_step=parts.save.best_step,
        ended_early=parts.early.ended is not None,
    )
    record.events.add("stop" if stopped else "done", trainer.global_step)
    tell(console, config, record, parts.validation, stopped=bool(stopped))
    return _ended(console, config, record, stopped)


def _ended(console: Console, config: FitConfig, record: RunRecord, stopped: int) -> int:
    """The page of a run that is whole; the exit code: the first rank's is the run's."""
    if not is_first_rank():
        return 0
    if config.trainer.report and not stopped:
        write_page(console, record.run_dir, is_ours=True)
    if config.trainer.requeue and stopped == LostRank.exit_code:
        console.print(f"queued again: Slurm job {queue_again()}", highlight=False)
    return stopped


def _begun(record: RunRecord, data: ClipDataModule, first_step: int, known: dict[str, Any]) -> None:
    """Nothing is refused any more."""
    record.update(state="running", **known)
    record.events.add("resume" if first_step else "start", first_step)
    data.bad_samples.write_to(record.run_dir / "bad_samples.jsonl")


def _agreed(rung: Rung | None, config: FitConfig, data: ClipDataModule) -> Rung | None:
    """The rung of the rank that has the least room: ranks whose base is in parts compute, and fetch, alike."""
    names = [name for name in of_all(rung.name if rung else None) if name]
    least = max(names, key=RUNGS.index, default=None)
    if rung is None or least is None or least == rung.name:
        return rung
    lower = settle(with_rung(config, least), build.build_module, sizes=data.sizes)
    return lower and replace(lower, why=f"{lower.why}; another rank has less room")


def _foreknown(config: FitConfig, family: ModelFamily, rung: Rung | None) -> dict[str, Any]:
    """What run.json tells before the first step."""
    told = {"rung": config.memory.rung, "plan": rung.as_record() if rung else None}
    return told | {"hardware": hardware(config.trainer.device), "use": family.spec.use}


def _about(config: FitConfig, data: ClipDataModule, module: FineTuning, base: str) -> dict[str, Any]:
    """What each checkpoint's manifest says."""
    told = {"base": base, "dataset": data.describe().fingerprint, "world_size": config.trainer.ranks}
    return told | {"encoded_ahead": module.encoded_ahead, "versions": versions()}


def _out_of_memory(error: BaseException, config: FitConfig, module: FineTuning, data: ClipDataModule) -> SystemFault:
    less = partial(ask, config, sizes=data.sizes, encoded_ahead=module.encoded_ahead)
    return explain(error, config, less, step=module.global_step)


def _pulse(patience: float | None, beats: str | None, run_dir: Path | None = None) -> Pulse:
    interval = min(1.0, (patience or 4.0) / 4)
    return Pulse(Path(beats) if beats else Path(f"{run_dir}/.ranks"), rank(), run_dir, interval)


def _settled(pulse: Pulse | None, run_dir: Path, trainer: TrainerConfig, held: ExitStack) -> Pulse:
    """This rank's, watched by the launcher, or by itself."""
    if pulse:
        pulse.settle(run_dir)
        return pulse
    pulse = held.enter_context(_pulse(trainer.watchdog, None, run_dir))
    if trainer.watchdog:
        held.enter_context(Watchdog(pulse, pulse.folder, trainer.watchdog, trainer.ranks))
    return pulse
