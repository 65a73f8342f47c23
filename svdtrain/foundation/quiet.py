"""What is said besides a command's own lines: our warnings, one line each on stderr, and of other packages errors only."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from typing import Any

from svdtrain.foundation.secrets import redacted


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """warning: the message."""
        return f"{record.levelname.lower()}: {record.getMessage()}"


def redact_logs() -> None:
    """From now on no log line of any package, ours or Hydra's or W&B's, holds a secret, wherever it goes."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def record(*given: Any, **named: Any) -> logging.LogRecord:  # noqa: ANN401
        made = make(*given, **named)
        with suppress(TypeError, ValueError):  # a message that cannot be put together is logging's to tell
            made.msg, made.args = redacted(made.getMessage()), ()
        return made

    record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def quiet_packages() -> None:
    """Take the log over from Hydra, which puts its own name and the time before every line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("pytorch_lightning", "lightning_fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("httpx", "httpx2", "fsspec", "filelock", "PIL", "urllib3", "huggingface_hub", "ray"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("libav", "diffusers"):  # what they log as an error they also raise
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings(
        "ignore", module="pytorch_lightning|lightning_fabric|torch.optim.lr_scheduler|huggingface_hub"
    )
