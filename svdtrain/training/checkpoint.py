"""Checkpoints as folders of safetensors and JSON: no pickle. A folder appears under its name only when it is whole."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from svdtrain.foundation.errors import ModelError, SystemFault

TENSORS, STATE = "tensors.safetensors", "state.json"


class FolderCheckpoint(CheckpointIO):
    """Lightning's checkpoint dictionary in two files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401, ARG002
        """Write beside the target, then rename. A failing save is an error, never a silence."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        tensors: dict[str, torch.Tensor] = {}
        state = _pack(checkpoint, tensors)
        try:
            partial.mkdir(parents=True)
            save_file(tensors, partial / TENSORS)
            (partial / STATE).write_text(json.dumps(state))
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise SystemFault(
                f"{path}: the checkpoint cannot be written: {error}", "free space or rights there"
            ) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        """Read both files. Raises ModelError for a folder that is not a whole checkpoint."""
        try:
            tensors = load_file(Path(path) / TENSORS)
            return _unpack(json.loads((Path(path) / STATE).read_text()), tensors)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise ModelError(f"{path}: not a whole checkpoint ({error})", "resume from another run folder") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint folder."""
        shutil.rmtree(path, ignore_errors=True)


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints by step, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step-*"), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint folder, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


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
