"""Where metrics go: metrics.jsonl always, W&B (offline without a key, never asking), tensorboard."""

from __future__ import annotations

import logging
import netrc
import os
import time
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.secrets import redacted
from svdtrain.training.metrics_file import MetricsFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

log = logging.getLogger(__name__)


def build_loggers(
    kind: str, project: str, name: str, run_dir: Path, settings: dict[str, Any], console: Console
) -> list[Logger]:
    """RUN/metrics.jsonl always; the chosen tracker beside it, with its files in the run folder."""
    loggers: list[Logger] = [MetricsFile(run_dir)]
    if kind == "csv":
        loggers.append(CSVLogger(run_dir, name="csv", version=time.strftime("%Y%m%d-%H%M%S")))
    if kind == "wandb":
        loggers.append(_wandb(redacted(project), name, run_dir, console))
    if kind == "tensorboard":
        try:
            loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            hint = "pip install tensorboard, or logger=none"
            raise UsageError("logger=tensorboard: the package tensorboard is not installed", hint) from error
    for logger in loggers[1:]:
        broken = unfailing(logger, _forget_wandb if kind == "wandb" else None)
        logger.log_hyperparams(redacted(settings))
        if broken:
            loggers.remove(logger)  # Lightning would begin it anew
    return loggers


def unfailing(logger: Logger, forget: Callable[[], object] | None = None) -> list[Exception]:
    """A tracker that breaks is told once, and left alone from then on: it never stops training.

    forget: ends what it would wait for. The list that comes back holds, from then on, what was wrong.
    """
    broken: list[Exception] = []

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            if broken:
                return None
            try:
                return method(*given, **named)
            except Exception as error:  # of any kind: none of it is worth a run
                broken.append(error)
                if forget:
                    with suppress(Exception):
                        forget()
                log.warning("%s is left alone from here on: %s", type(logger).__name__, str(error).partition("\n")[0])
                return None

        return call

    for name in ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"):
        setattr(logger, name, guarded(getattr(logger, name)))
    return broken


def _wandb(project: str, name: str, run_dir: Path, console: Console) -> WandbLogger:
    import wandb

    for variable in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(variable, str(run_dir))
    offline = os.environ.get("WANDB_MODE") == "offline" or not _has_key()
    if offline:
        console.print("logger=wandb: no API key, so the run is kept offline; `wandb sync` can upload it later")
    quiet = wandb.Settings(
        console="off", disable_git=True, disable_code=True, x_disable_meta=True, silent=True, init_timeout=30
    )
    return WandbLogger(name=name, project=project, save_dir=run_dir, offline=offline, log_model=False, settings=quiet)


def _forget_wandb() -> None:
    """Its service is gone: at the end of the process nobody shall ask for it."""
    import wandb

    wandb.teardown()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
