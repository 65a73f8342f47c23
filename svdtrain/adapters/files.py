"""Adapter files: found, read in any known format, checked, and written. Without torch."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters import formats
from svdtrain.adapters.container import DTYPES, Container, write_container
from svdtrain.adapters.patterns import safe_pattern
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation.errors import ModelError, shown
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svdtrain.adapters.layer import Layer
    from svdtrain.adapters.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class AdapterFile:
    """A file's contents, by the names that diffusers gives the modules."""

    path: Path
    layers: Mapping[str, Layer]
    info: AdapterInfo
    settings: Mapping[str, Any] = field(default_factory=dict)
    """peft's config, as far as the file states it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    format: str = formats.PEFT
    dtype: str = "fp32"
    """Of its tensors."""
    layout: Layout | None = None
    """Of the base that its names were understood by."""
    component: str = "unet"
    """The pipeline's part that it sits on."""


def adapter_path(place: str | Path) -> Path:
    """The weights file of a run folder, an adapter folder or a file. Raises ModelError when there is none."""
    path = Path(place)
    for candidate in (path, path / WEIGHTS, path / "adapter" / WEIGHTS):
        if candidate.is_file():
            return candidate
    problem = f"holds neither {WEIGHTS} nor adapter/{WEIGHTS}" if path.is_dir() else "does not exist"
    raise ModelError(
        f"adapter={place}: {problem}", "give a run folder or an adapter file, such as fit and export write"
    )


def save_adapter(folder: Path, tensors: Mapping[str, Array], config: Mapping[str, Any], info: AdapterInfo) -> Path:
    """Write fp32 weights in peft's layout, header and adapter_config.json; each file appears whole or not at all.

    `tensors`: MODULE.lora_A.weight and so on; `config`: peft's own, which states rank and alpha.
    """
    described = {key: sorted(v) if isinstance(v, set) else v for key, v in config.items() if v is not None}
    described = redacted(json.loads(json.dumps(described, default=str)))
    header = {"format": "pt", "lora_adapter_metadata": json.dumps(described, sort_keys=True)}
    named = {f"{formats.PEFT_PREFIX}{name}": np.asarray(tensor) for name, tensor in tensors.items()}
    write_atomic(folder / CONFIG, json.dumps(described, indent=2, sort_keys=True))
    write_container(folder / WEIGHTS, named, header | info.header(private=True))
    return folder / WEIGHTS


def write_public(path: Path, out: Path) -> None:
    """A copy of a file that save_adapter wrote, without what is private in its header."""
    container = Container(path)
    private = {f"svdtrain.{one.name}" for one in fields(AdapterInfo) if one.metadata.get("private")}
    header = {key: text for key, text in container.metadata.items() if key not in private}
    write_container(out, {name: container.array(name) for name in container.entries}, header)


def read_adapter(place: str | Path, layout: Layout | None = None) -> AdapterFile:
    """Read and check an adapter, by its base's layout or else that of the published model its names belong to.

    Raises ModelError for a file that is damaged, empty, not finite, of unknown names, or for a base of another shape.
    """
    path = adapter_path(place)
    container = Container(path)
    keys = formats.split_keys(container.entries)
    if not container.entries:
        raise ModelError(f"{path}: it holds no tensors", "train or export it again")
    if keys.strange:
        first = ", ".join(f"'{key}'" for key in keys.strange[:3])
        hint = "read are LoRA, DoRA, LoHa and LoKr as peft, diffusers, kohya's tools and svdtrain write them"
        raise ModelError(f"{path}: {len(keys.strange)} tensors are no adapter's, first {shown(first, 100)}", hint)
    settings = read_settings(path, container, formats.format_of(container.entries))
    guessed = formats.recognised(container, keys) if layout is None else None
    if guessed and all(formats.module_of(stem, guessed) for stem in keys.stems):
        with suppress(WrongSize):  # names of a published model, and another size
            return _read(path, container, keys, settings, guessed)
    return _read(path, container, keys, settings, layout)


class WrongSize(ModelError):
    """An adapter of a model whose modules have the same names and other shapes."""


def _read(
    path: Path, container: Container, keys: formats.Keys, settings: formats.Settings | None, layout: Layout | None
) -> AdapterFile:
    modules = _modules(path, keys.stems, layout)
    layers: dict[str, Layer] = {}
    for stem, parts in keys.stems.items():
        module = modules[stem]
        arrays = {part: container.array(key) for part, key in parts.items() if part != formats.ALPHA}
        if bad := next((parts[part] for part, array in arrays.items() if not np.isfinite(array).all()), None):
            raise ModelError(
                f"{path}: '{shown(bad)}' holds numbers that are not finite", "use an earlier checkpoint of the run"
            )
        alpha = container.number(parts[formats.ALPHA]) if formats.ALPHA in parts else None
        layer = formats.layer_from(module, arrays, alpha, settings, where=str(path))
        if fault := layer.fault(layout.shapes[module] if layout else None):
            raise WrongSize(f"{path}: '{shown(module)}': {shown(fault, 90)}", "it was made for a model of another size")
        layers[module] = layer
    _refuse_half(path, set(layers), settings, layout)
    return AdapterFile(
        path,
        dict(sorted(layers.items())),
        AdapterInfo.from_header(container.metadata),
        settings.values if settings else {},
        container.metadata,
        formats.format_of(container.entries),
        _dtype(container),
        layout,
        layout.component if layout else _component(container),
    )


def _component(container: Container) -> str:
    first = next(iter(container.entries))
    return "transformer" if first.startswith(("transformer.", "lora_transformer_")) else "unet"


def _modules(path: Path, stems: Mapping[str, Any], layout: Layout | None) -> dict[str, str]:
    """Spelling -> module. Raises ModelError for spellings that name none, or one that is named twice."""
    found = {stem: formats.module_of(stem, layout) for stem in stems}
    unknown = [stem for stem, module in found.items() if module is None]
    if unknown:
        first = ", ".join(f"'{stem}'" for stem in unknown[:3])
        raise ModelError(
            f"{path}: {len(unknown)} of its {len(found)} modules are not in this model, first {shown(first, 100)}",
            "it was made for another kind or size of model",
        )
    modules = {stem: module for stem, module in found.items() if module is not None}
    if len(set(modules.values())) < len(modules):
        names = list(modules.values())
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(
            f"{path}: '{shown(twice)}' stands in it twice, spelled differently", "the file is damaged or forged"
        )
    if layout is None and (flat := next((m for m in modules.values() if "." not in m), None)):
        hint = "base=FOLDER of the model that it was made for"
        raise ModelError(
            f"{path}: whose module is '{shown(flat)}'? No published model that svdtrain knows has one", hint
        )
    return modules


def _refuse_half(path: Path, there: set[str], settings: formats.Settings | None, layout: Layout | None) -> None:
    """Raises ModelError when the settings speak of modules of the base that the file does not have."""
    values = settings.values if settings else {}
    targets = values.get("target_modules")
    if not targets or layout is None or any(values.get(name) for name in ("exclude_modules", "layers_to_transform")):
        return
    if isinstance(targets, str):
        try:
            pattern = safe_pattern(targets)
        except ValueError as error:
            raise ModelError(
                f"{path}: target_modules in its settings: {shown(str(error), 90)}", "the file is damaged or forged"
            ) from error
        stated = {name for name in layout.shapes if pattern.fullmatch(name)}
    else:
        endings = tuple(f".{target}" for target in targets)
        stated = {name for name in layout.shapes if name in targets or name.endswith(endings)}
    if missing := sorted(stated - there):
        first = ", ".join(f"'{name}'" for name in missing[:3])
        message = f"{path}: {len(missing)} of its {len(stated)} modules are missing, first {shown(first, 100)}"
        raise ModelError(message, "the file is cut, or was taken apart by a tool that left its settings as they were")


def read_settings(path: Path, container: Container, kind: str) -> formats.Settings | None:
    """peft's config from the header, else from adapter_config.json, without which peft's layout says nothing of alpha."""
    beside = path.parent / CONFIG
    text = container.metadata.get("lora_adapter_metadata", "")
    try:
        if not text and kind == formats.PEFT and not any(key.endswith(".alpha") for key in container.entries):
            if not beside.is_file():
                message = f"{path}: neither its header nor {CONFIG} beside it says rank and alpha"
                raise ModelError(message, f"copy {CONFIG} along")
            text = beside.read_text(encoding="utf-8")
        return formats.settings_from(text) if text else None
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path}: its settings cannot be read ({shown(str(error), 120)})", f"mend {CONFIG} or train again"
        ) from error


def _dtype(container: Container) -> str:
    kinds = [entry.dtype for entry in container.entries.values() if entry.shape]
    usual = max(set(kinds), key=kinds.count, default="F32")
    return next((name for name, kind in DTYPES.items() if kind == usual), "fp32")
