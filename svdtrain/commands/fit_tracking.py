"""What a fit tells its tracker, besides numbers: which adapter, of which data, and whether videos may leave."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from svdtrain.foundation.hardware import is_first_rank
from svdtrain.foundation.secrets import redacted
from svdtrain.training.callbacks.track import TrackRun, Watched
from svdtrain.training.loggers import build_tracker
from svdtrain.training.trackers.background import BackgroundLogger
from svdtrain.training.trackers.weights_and_biases import is_offline

if TYPE_CHECKING:
    from rich.console import Console

    from svdtrain.commands.fit_parts import Parts
    from svdtrain.config.schema import FitConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.reporting.run_record import RunRecord


def track(
    config: FitConfig, data: ClipDataModule, record: RunRecord, parts: Parts, base: str, console: Console
) -> TrackRun:
    """The callback that tells them, and its trackers: one or none, and none but on the first rank."""
    trackers = (
        [_tracker(config, record, console)] if config.logger.kind not in ("none", "csv") and is_first_rank() else []
    )
    summary, adapter, model = data.describe(), config.adapter, config.model
    dataset = {
        "fingerprint": summary.fingerprint,
        "train_clips": summary.train_clips,
        "held_out_clips": summary.held_out_clips,
        "shards": summary.shards,
        "bytes": summary.bytes,
    }
    about = {
        "base": model.id or model.name,
        "base_fingerprint": base,
        "recipe": config.name,
        "kind": adapter.kind,
        "ranks": {half: getattr(adapter, half).rank for half in ("spatial", "temporal")},
        "dataset_fingerprint": summary.fingerprint,
    }
    watched = Watched(parts.guard, parts.validation, parts.samples, parts.save, parts.early)
    settings = redacted(config.model_dump(mode="json"))
    return TrackRun(record.run_dir, trackers, watched, config.logger.media, settings, redacted(about), dataset)


def _tracker(config: FitConfig, record: RunRecord, console: Console) -> BackgroundLogger:
    logger = config.logger
    patience = min(logger.patience, (config.trainer.watchdog or 1e9) / 2)  # waiting is no progress
    # An agent of W&B's sweeps has given the run its name already.
    identity = os.environ.get("WANDB_RUN_ID") or record.fields.get("tracker_run") or secrets.token_hex(4)
    record.update(tracker_run=identity)
    if logger.kind == "wandb" and is_offline():
        console.print("logger=wandb: no API key, so the run is kept offline; `wandb sync` can upload it later")
    all_media = logger.media == "all"
    tracker = build_tracker(
        logger.kind, logger.project, config.name, identity, record.run_dir, patience, all_media=all_media
    )
    return BackgroundLogger(tracker, patience)
