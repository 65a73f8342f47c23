"""Where a fit writes: a new folder, or that of the run that goes on, held by a lock; and the checkpoint it goes on from."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.fingerprint import differences
from svdtrain.config.changes import refuse_changes
from svdtrain.foundation.errors import ModelError, SystemFault, UsageError
from svdtrain.foundation.hardware import is_first_rank
from svdtrain.foundation.space import refuse_full, refuse_unwritable
from svdtrain.launching.control import Control
from svdtrain.planning.disk import bytes_of_fit
from svdtrain.planning.training_step import blank_family
from svdtrain.reporting.run_lock import locked
from svdtrain.reporting.run_record import RunRecord, newest_run, refuse_taken, versions
from svdtrain.training.build import build_module
from svdtrain.training.checkpoint import about_checkpoint, newest_whole, remove_staged, step_of
from svdtrain.training.ranks import from_first, rank

if TYPE_CHECKING:
    from contextlib import ExitStack

    from svdtrain.config.schema import FitConfig

log = logging.getLogger(__name__)

APPEARS = 90.0
"""Seconds until a network's folder shows on one machine what another has made: NFS may remember for 60 that it is not there."""
EXACT = ("svdtrain", "torch", "diffusers", "transformers")
"""Whose versions may round differently."""


def going_on(config: FitConfig, held: ExitStack) -> Path | None:
    """The folder of the run that is to go on (that of `resume`, or a run_dir that holds a run), held by the first rank.

    Raises, before anything heavy is loaded: UsageError where the settings differ from the run's in what matters, or the
    folder is taken; SystemFault where it cannot be written, or what the run saves would not go in.
    """
    if config.resume is not None:
        folder = newest_run(config.name) if config.resume == "auto" else Path(config.resume)
    else:
        here = Path(config.run_dir) if config.run_dir else None
        folder = here if here and (here / "run.json").is_file() and (here / "run.json").stat().st_size else None
    if is_first_rank():
        place = folder or Path(config.run_dir or f"runs/{config.name}")
        if folder:
            refuse_changes(RunRecord.reopen(folder).config(), config.model_dump(mode="json"), config.change)
            held.enter_context(locked(folder))
            Control(folder).taken()  # of an earlier process
        elif config.run_dir:
            refuse_taken(place)
            held.enter_context(locked(place))
        refuse_unwritable(place)
        refuse_full(place, bytes_of_fit(config, blank_family(config, build_module)))
    return folder


def opened(config: FitConfig, folder: Path | None, overrides: list[str], held: ExitStack) -> RunRecord:
    """The record of a new run, its folder held, or of the one that goes on; ranks have the first one's."""
    if not is_first_rank():
        return RunRecord.reopen(_seen(Path(from_first(None))), writes=False)
    settings = config.model_dump(mode="json")
    if folder:
        record = RunRecord.reopen(folder)
        remove_staged(folder)
    elif config.run_dir:
        record = RunRecord.create(config.name, config.run_dir, settings, overrides, is_held=True)
    else:
        record = RunRecord.create(config.name, None, settings, overrides)
        held.enter_context(locked(record.run_dir))
    from_first(str(record.run_dir.resolve()))
    return record


def _seen(folder: Path) -> Path:
    """The run's folder, made by another machine perhaps. Raises SystemFault where it does not appear here."""
    deadline = time.monotonic() + APPEARS
    while not (folder / "run.json").exists():
        if time.monotonic() > deadline:
            raise SystemFault(
                f"{folder}: rank {rank()} on {socket.gethostname()} does not see the folder that the first rank writes to",
                "run_dir=FOLDER on a disk that all machines share, by the same path",
            )
        time.sleep(0.2)
    return folder


def checkpoint_of(config: FitConfig, record: RunRecord, base: str, *, encoded_ahead: bool) -> Path | None:
    """The newest whole checkpoint of a run that goes on with these settings, on this base; None where it has saved none.

    Raises UsageError for a run that is complete or has lost its checkpoints; ModelError where none of them is whole, or for
    another base.
    """
    newest, passed_over = from_first(newest_whole(record.run_dir))  # a network's folder may show ranks different ones
    if not newest and passed_over:
        raise ModelError(f"{passed_over[0]}; none of its checkpoints is whole", "start a new run, in another folder")
    if not newest and (saved := record.events.latest("save")):
        raise UsageError(
            f"{record.run_dir}: it has trained {saved} steps and its checkpoints are gone, so it cannot go on",
            "run_dir=FOLDER, a new one; its adapter stays",
        )
    if not newest:
        return None
    for line in passed_over if is_first_rank() else ():
        log.warning("%s", line)
    if step_of(newest) >= config.trainer.max_steps:
        is_at = "is at" if step_of(newest) > config.trainer.max_steps else "is complete at"
        raise UsageError(
            f"resume={record.run_dir}: the run {is_at} step {step_of(newest)}",
            f"raise trainer.max_steps (now {config.trainer.max_steps}) to train on",
        )
    about = about_checkpoint(newest)
    for name, before in (about.get("versions") or {}).items() if is_first_rank() else ():
        if (now := versions().get(name)) != before and name in EXACT:
            log.warning("%s was %s, now it is %s: the run goes on, but not bit for bit", name, before, now)
    if about.get("encoded_ahead") is (not encoded_ahead) and is_first_rank():
        now, held = ("now", "none") if encoded_ahead else ("no longer", "disk")
        log.warning("clips come %s from a cache on disk: not bit for bit; data.cache=%s keeps to what was", now, held)
    if odd := differences(str(about.get("base")), base):
        raise ModelError(f"{newest}: it was trained on another base: {odd}", "resume with the model of the run")
    return newest
