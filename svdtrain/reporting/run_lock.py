"""One process at a time trains in a run folder. The system frees the lock of a process that is killed."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.foundation.files import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK, HOLDER = ".lock", ".lock.json"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the folder. Raises UsageError that names the process which holds it."""
    made = not run_dir.exists()
    fresh = made or not any(run_dir.iterdir())
    lock = FileLock(run_dir / LOCK)
    try:
        make_folder(run_dir)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{run_dir}: {_holder(run_dir)} trains there", "wait for it, or stop it") from None
    except OSError as error:
        raise SystemFault(f"{run_dir}: cannot be written: {error.strerror}", "a folder you may write to") from error
    try:
        (run_dir / HOLDER).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        (run_dir / HOLDER).unlink(missing_ok=True)
        lock.release()
        if fresh and not (run_dir / "run.json").exists():
            (run_dir / LOCK).unlink(missing_ok=True)
            if made:
                with suppress(OSError):  # somebody has put something there
                    run_dir.rmdir()


def is_held(run_dir: Path) -> bool:
    """Whether a process trains there."""
    try:
        with FileLock(run_dir / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return (run_dir / HOLDER).exists()


def _holder(run_dir: Path) -> str:
    try:
        told = json.loads((run_dir / HOLDER).read_text())
        return f"process {told['pid']} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
