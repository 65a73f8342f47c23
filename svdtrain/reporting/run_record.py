"""A run's folder: made once, never shared, with run.json (state, versions, results) and config.yaml in it."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

import svdtrain
from svdtrain.foundation.bounded_yaml import bounded
from svdtrain.foundation.errors import SystemFault, UsageError, shown
from svdtrain.foundation.files import make_folder, sync, write_atomic
from svdtrain.foundation.secrets import redacted
from svdtrain.reporting.run_events import RunEvents

_PACKAGES = ("torch", "pytorch-lightning", "diffusers", "peft", "transformers", "webdataset")


class RunRecord:
    """run.json of one run folder, written whole at every change, by one rank."""

    def __init__(self, run_dir: Path, fields: dict[str, Any], *, writes: bool = True) -> None:
        self.run_dir, self.fields, self.writes = run_dir, fields, writes
        self.events = RunEvents(run_dir, writes=writes)

    @classmethod
    def create(
        cls, name: str, run_dir: str | None, config: dict[str, Any], overrides: list[str], *, is_held: bool = False
    ) -> RunRecord:
        """A new folder: the given one, which must be empty or absent, or runs/NAME/TIME. Raises UsageError, SystemFault.

        is_held: by a lock, so that what a killed run left before it had begun may be taken over.
        """
        path = _reserve(Path(run_dir), is_held=is_held) if run_dir else _reserve_new(Path("runs") / name)
        fields = {
            "name": name,
            "state": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "overrides": redacted(overrides),
            "versions": versions(),
        }
        record = cls(path, fields)
        write_atomic(path / "config.yaml", OmegaConf.to_yaml(redacted(config)))
        record.update()
        return record

    @classmethod
    def reopen(cls, run_dir: Path, *, writes: bool = True) -> RunRecord:
        """The record of a run that goes on. Raises UsageError when the folder is no run."""
        try:
            fields = redacted(json.loads((run_dir / "run.json").read_text()))
            if not isinstance(fields["state"], str):
                raise TypeError("state is no text")
            return cls(run_dir, {"overrides": [], "versions": {}} | fields, writes=writes)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(
                f"resume={run_dir}: it is no run folder (run.json: {shown(str(error))})", "give a folder under runs/"
            ) from error

    def config(self) -> dict[str, Any]:
        """The settings that the run began with. Raises UsageError where they cannot be read."""
        try:
            read = yaml.load((self.run_dir / "config.yaml").read_text(), Loader=bounded(yaml.SafeLoader))
            if not isinstance(read, dict):
                raise ValueError("it holds no settings")
            return read
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise UsageError(
                f"resume={self.run_dir}: config.yaml cannot be read: {shown(str(error))}", "start a new run"
            ) from error

    def update(self, **changes: Any) -> None:  # noqa: ANN401
        """Change fields and write the file."""
        self.fields |= changes
        if self.writes:
            write_atomic(self.run_dir / "run.json", json.dumps(redacted(self.fields), indent=2))


def versions() -> dict[str, str]:
    """Of svdtrain, Python and the packages that results depend on."""
    ours = {"svdtrain": svdtrain.__version__, "python": platform.python_version()}
    return ours | {package: version(package) for package in _PACKAGES}


def newest_run(name: str) -> Path:
    """The newest run folder of a name that has run.json. Raises UsageError when there is none."""
    runs = sorted(path.parent for path in (Path("runs") / name).glob("*/run.json"))
    if not runs:
        raise UsageError(f"resume=auto: there is no run in runs/{name}", "start it without resume")
    return runs[-1]


def refuse_taken(path: Path) -> None:
    """Raise UsageError for a folder that holds anything, or is a file."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"run_dir={path}: taken by another run or file", "choose another folder")
    if path.exists() and not _is_free(path):
        raise UsageError(f"run_dir={path}: the folder is not empty", "two runs never share a folder: choose another")


def _is_free(path: Path) -> bool:
    """Empty, or all that is there is a run that was killed before it had begun."""
    names = {one.name for one in path.iterdir() if not one.name.startswith((".lock", ".partial-"))}
    begun = path / "run.json"
    return not names or (names <= {"run.json", "config.yaml"} and begun.is_file() and not begun.stat().st_size)


def _reserve(path: Path, *, is_held: bool = False) -> Path:
    try:
        make_folder(path)
        refuse_taken(path)
        (path / "run.json").touch(exist_ok=is_held)  # of two runs that start together, one fails here
    except FileExistsError as error:
        raise UsageError(f"run_dir={path}: taken by another run or file", "choose another folder") from error
    except OSError as error:
        raise SystemFault(
            f"run_dir={path}: cannot be made: {error.strerror}", "choose a folder you may write to"
        ) from error
    return path


def _reserve_new(parent: Path) -> Path:
    """runs/NAME/TIME, and TIME-002 … when several runs start in one second: names sort by age."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        path = parent / (stamp if attempt == 1 else f"{stamp}-{attempt:03d}")
        try:
            make_folder(parent)
            os.mkdir(path)  # noqa: PTH102  (fails when it exists, which is the point)
            sync(parent)
        except FileExistsError:
            continue
        except OSError as error:
            raise SystemFault(
                f"{parent}: cannot be written: {error.strerror}", "run_dir=FOLDER chooses another"
            ) from error
        return path
    raise SystemFault(f"{parent}: a thousand runs started in one second", "run_dir=FOLDER names one")
