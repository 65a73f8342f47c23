"""Where metrics go: metrics.jsonl always, metrics.csv for spreadsheets, or the chosen tracker on a thread of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytorch_lightning.loggers import CSVLogger, Logger

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.secrets import redacted
from svdtrain.training.metrics_file import MetricsFile
from svdtrain.training.trackers.weights_and_biases import WandbTracker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from svdtrain.training.trackers.tracker import Tracker


def build_loggers(run_dir: Path, kind: str, trackers: Sequence[Logger]) -> list[Logger]:
    """RUN/metrics.jsonl always; RUN/csv/TIME/metrics.csv where that is asked for; and the trackers."""
    csv = [CSVLogger(run_dir, name="csv", version=time.strftime("%Y%m%d-%H%M%S"))] if kind == "csv" else []
    return [MetricsFile(run_dir), *csv, *trackers]


def build_tracker(
    kind: str, project: str, name: str, identity: str, run_dir: Path, patience: float, *, all_media: bool
) -> Tracker:
    """Of its kind, with its files in the run folder. Raises UsageError where its library is not installed."""
    project = redacted(project)
    try:
        if kind == "wandb":
            return WandbTracker(project, name, identity, run_dir, patience, all_media=all_media)
        if kind == "trackio":
            from svdtrain.training.trackers.trackio_runs import TrackioTracker

            return TrackioTracker(project, name, identity, run_dir)
        from svdtrain.training.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker(run_dir)
    except ModuleNotFoundError as error:
        hint = f"pip install 'svdtrain[{kind}]', or logger=none"
        raise UsageError(f"logger={kind}: the package {kind} is not installed", hint) from error
