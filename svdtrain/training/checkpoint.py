"""Checkpoints as folders of safetensors and JSON: no pickle. A folder appears under its name only when it is whole.

A manifest lists the other files with their sha256, so that a damaged checkpoint is known before anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from svdtrain.foundation.errors import ModelError, NumericError, SystemFault, shown
from svdtrain.foundation.files import make_folder, sync

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
STAGED = ".staged-"
PAUSES = (0.5, 2.0)
"""Seconds before a failed save is tried again: a network's folder may be away for a moment."""
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)


class FolderCheckpoint(CheckpointIO):
    """Lightning's checkpoint dictionary in two files and their manifest."""

    def __init__(self, about: Mapping[str, object] | None = None) -> None:
        self.about = dict(about or {})
        """What else the manifest says: world size, fingerprints, versions."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401, ARG002
        """Write beside the target, flush to the disk, then rename. A failing save is an error, never a silence.

        A checkpoint of the same step stays until the new one is there: that one is then called step-000123.1.
        Raises SystemFault, and NumericError for a tensor that is not finite: such a state is nothing to go on from.
        """
        path = Path(path)
        tensors: dict[str, torch.Tensor] = {}
        state = json.dumps(_pack(checkpoint, tensors))
        if broken := sum(not bool(one.isfinite().all()) for one in tensors.values() if one.is_floating_point()):
            raise NumericError(f"{path}: not saved, {broken} of its tensors are not finite", "resume from an older one")
        for pause in (*PAUSES, None):
            try:
                self._write(path, state, tensors)
            except (OSError, SafetensorError) as error:
                if pause is None:
                    size = len(state) + sum(one.nbytes for one in tensors.values())
                    free = shutil.disk_usage(next(place for place in path.absolute().parents if place.exists())).free
                    told = f"{size / 1e6:.1f} MB, {free / 1e6:,.1f} MB free"
                    raise SystemFault(
                        f"{path}: the checkpoint cannot be written ({told}): {error}",
                        "make room or give rights there; the same command then goes on from the checkpoint before",
                    ) from error
                time.sleep(pause)
            else:
                return

    def _write(self, path: Path, state: str, tensors: dict[str, torch.Tensor]) -> None:
        staged = path.with_name(f"{STAGED}{path.name}-{uuid.uuid4().hex}")
        try:
            make_folder(path.parent)
            staged.mkdir()
            save_file(tensors, staged / TENSORS)
            (staged / STATE).write_text(state)
            files = {name: _mark(staged / name) for name in (TENSORS, STATE)}
            (staged / MANIFEST).write_text(json.dumps({"format": 1, "files": files, "about": self.about}, indent=1))
            for name in (TENSORS, STATE, MANIFEST, "."):
                sync(staged / name)
            before = [one for one in (path, *path.parent.glob(f"{path.name}.*")) if one.exists()]
            staged.rename(path.with_name(f"{path.name}.{1 + max(map(_again, before))}") if before else path)
            sync(path.parent)
            for old in before:
                shutil.rmtree(old)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        """Read both files. Raises ModelError for a folder that is not a whole checkpoint."""
        if fault := fault_of(Path(path)):
            raise ModelError(f"{path}: not a whole checkpoint ({fault})", "resume from another run folder")
        try:
            tensors = load_file(Path(path) / TENSORS)
            return _unpack(json.loads((Path(path) / STATE).read_text()), tensors)
        except (*_UNREADABLE, SafetensorError) as error:
            raise ModelError(
                f"{path}: not a whole checkpoint ({shown(str(error))})", "resume from another run folder"
            ) from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint folder."""
        shutil.rmtree(path, ignore_errors=True)


def fault_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint folder, by its manifest; empty for a whole one."""
    try:
        said = json.loads((checkpoint / MANIFEST).read_text())
        files, _ = said["files"], dict(said["about"])
        for name in (TENSORS, STATE):
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if _mark(checkpoint / name) != files[name]:
                return f"{name} is not what {MANIFEST} lists"
    except _UNREADABLE as error:
        return f"{MANIFEST}: {type(error).__name__} {shown(str(error))}"
    return ""


def newest_whole(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that its manifest vouches for; and a line for each newer one that is passed over."""
    passed_over: list[str] = []
    for checkpoint in reversed(checkpoints(run_dir)):
        if not (fault := fault_of(checkpoint)):
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint} is passed over: {fault}")
    return None, passed_over


def about_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """What a whole checkpoint's manifest says of it."""
    return json.loads((checkpoint / MANIFEST).read_text())["about"]


def remove_staged(run_dir: Path) -> None:
    """What saves that were killed have left behind."""
    for folder in (run_dir / "checkpoints").glob(f"{STAGED}*"):
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints by step, oldest first."""
    found = (run_dir / "checkpoints").glob("step-*")
    return sorted((one for one in found if re.fullmatch(r"step-\d+(\.\d+)?", one.name, re.ASCII)), key=_place)


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint folder, by its name."""
    return _place(checkpoint)[0]


def _place(checkpoint: Path) -> tuple[int, int]:
    return int(checkpoint.name.removeprefix("step-").partition(".")[0]), _again(checkpoint)


def _again(checkpoint: Path) -> int:
    """How often its step was saved before."""
    return int(checkpoint.name.partition(".")[2] or 0)


def _mark(file: Path) -> dict[str, object]:
    with file.open("rb") as content:
        return {"sha256": hashlib.file_digest(content, "sha256").hexdigest(), "size": file.stat().st_size}


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:  # noqa: ANN401
    """JSON with the keys' types kept; tensors go aside under a number."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_pack(v, tensors) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors, numbers, strings and containers of them, not {type(value)}")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    return {"list": list, "tuple": tuple}[kind](_unpack(v, tensors) for v in content)
