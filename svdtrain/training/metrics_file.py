"""RUN/metrics.jsonl: what is measured while a run trains, a line each time, in one file however often it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from svdtrain.foundation.json_lines import JsonLines
from svdtrain.reporting.run_files import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class MetricsFile(Logger):
    """Step, time (seconds since 1970) and numbers by name. A resumed run repeats steps: the later line of one counts."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._lines = JsonLines(run_dir / METRICS)

    @property
    def name(self) -> str:
        """Of no folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """Likewise."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Raises SystemFault where the disk is full."""
        numbers = {name: float(value) for name, value in metrics.items()}
        self._lines.append({"step": step, "time": round(time.time(), 3)} | numbers)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """They are in config.yaml."""
