"""Adapter files: adapter_model.safetensors in peft's layout, with everything needed to use it in the header."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_RANGE = (1e-4, 1e4)


@dataclass(frozen=True)
class AdapterFile:
    """A file's contents: tensors named MODULE.lora_A.weight and MODULE.lora_B.weight."""

    tensors: dict[str, Tensor]
    config: LoraConfig
    info: AdapterInfo


def adapter_path(place: str | Path) -> Path:
    """The weights file of a run folder, an adapter folder or a file. Raises ModelError when there is none."""
    path = Path(place)
    for candidate in (path, path / WEIGHTS, path / "adapter" / WEIGHTS):
        if candidate.is_file():
            return candidate
    problem = f"holds neither {WEIGHTS} nor adapter/{WEIGHTS}" if path.is_dir() else "does not exist"
    raise ModelError(f"adapter={place}: {problem}", "give a run folder or an adapter file written by fit")


def save_adapter(folder: Path, tensors: dict[str, Tensor], config: LoraConfig, info: AdapterInfo) -> Path:
    """Write fp32 weights, header and adapter_config.json; each file appears whole or not at all."""
    described = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items() if v is not None}
    described = json.loads(json.dumps(described, default=str))
    header = {"format": "pt", "lora_adapter_metadata": json.dumps(described, sort_keys=True)}
    header |= {f"svdtrain.{key}": value for key, value in asdict(info).items() if value}
    folder.mkdir(parents=True, exist_ok=True)
    plain = {f"{_PREFIX}{name}": t.detach().to("cpu", torch.float32).contiguous() for name, t in tensors.items()}
    write_atomic(folder / CONFIG, json.dumps(described, indent=2, sort_keys=True).encode())
    write_atomic(folder / WEIGHTS, _ordered(save(plain, metadata=header)))
    return folder / WEIGHTS


def _ordered(content: bytes) -> bytes:
    """The same file with its header's keys in order: safetensors writes them in a random one."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert len(header.encode()) <= length
    return content[:8] + header.encode().ljust(length) + content[8 + length :]


def read_adapter(place: str | Path) -> AdapterFile:
    """Read and check an adapter. Raises ModelError for a damaged, empty, non-finite or foreign file."""
    path = adapter_path(place)
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})", "copy or train it again") from error
    strange = [name for name in tensors if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if strange or not tensors:
        what = f"{len(strange)} tensors are no LoRA, first '{strange[0]}'" if strange else "it holds no tensors"
        raise ModelError(f"{path}: {what}", "adapters written by svdtrain or peft name theirs MODULE.lora_A.weight")
    bad = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    if bad:
        raise ModelError(f"{path}: '{bad}' holds numbers that are not finite", "use an earlier checkpoint of the run")
    known = {field.name for field in fields(AdapterInfo)}
    named = {key.removeprefix("svdtrain."): value for key, value in header.items() if key.startswith("svdtrain.")}
    info = AdapterInfo(**{key: value for key, value in named.items() if key in known})
    return AdapterFile(tensors, _config(path, header), info)


def _config(path: Path, header: dict[str, str]) -> LoraConfig:
    beside = path.parent / CONFIG
    text = header.get("lora_adapter_metadata") or (beside.read_text() if beside.is_file() else "")
    if not text:
        raise ModelError(
            f"{path}: neither its header nor {CONFIG} beside it says rank and alpha", f"copy {CONFIG} along"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        config = LoraConfig(
            **{k: values[k] for k in ("r", "lora_alpha", "target_modules", "use_rslora") if k in values}
        )
        config.rank_pattern = dict(values.get("rank_pattern") or {})
        config.alpha_pattern = dict(values.get("alpha_pattern") or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: its LoRA settings cannot be read ({error})", f"mend {CONFIG} or train again"
        ) from error
    for name, alpha in {"lora_alpha": config.lora_alpha, **config.alpha_pattern}.items():
        if not isinstance(alpha, int | float) or not _RANGE[0] <= alpha <= _RANGE[1]:
            raise ModelError(
                f"{path}: {name} is {alpha}, outside {_RANGE[0]:g} to {_RANGE[1]:g}", "the file is damaged"
            )
    return config
