"""What the tools share: an adapter opened by its base, and a new one written beside nothing that is there."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters import formats
from svdtrain.adapters.container import Container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import CONFIG, WEIGHTS, AdapterFile, adapter_path, read_adapter
from svdtrain.adapters.layout import BaseWeights, base_folder
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation.errors import ModelError, SystemFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svdtrain.adapters.layer import Layer
    from svdtrain.config.toolbox import WritingTool


def open_base(base: str | None) -> BaseWeights | None:
    """The base's weights on disk, where one is named."""
    return None if base is None else BaseWeights.of_pipeline(base_folder(base))


def stated_base(file: str | Path) -> BaseWeights | None:
    """The base that a file's header names, where it is at hand; None where it is not, or names none."""
    info = AdapterInfo.from_header(Container(adapter_path(file)).metadata)
    hub = f"{info.base}@{info.base_revision}" if info.base_revision else info.base
    for place in filter(None, (info.source, hub)):
        with suppress(ModelError):
            return BaseWeights.of_pipeline(base_folder(place))
    return None


def opened(file: str, base: BaseWeights | None) -> AdapterFile:
    """An adapter by the names of the base that is given, else of the one that it states."""
    known = base or stated_base(file)
    return read_adapter(file, known.layout if known else None)


def write(config: WritingTool, layers: Mapping[str, Layer], like: AdapterFile, did: str, *, computed: bool) -> None:
    """A new adapter that is `like` another but for its layers; `did` is added to what its header says of its making."""
    if not layers:
        raise ModelError(f"{like.path}: nothing of it is left", "ask for less")
    ranks = sorted({layer.rank for layer in layers.values() if layer.rank})
    info = replace(
        like.info,
        kind=formats.kinds_of(layers),
        rank=" ".join(map(str, ranks)),
        alpha=" ".join(map(str, ranks)),
        results="" if did else like.info.results,
        targets="" if did else like.info.targets,
        made_by="; ".join(part for part in (like.info.made_by, did) if part),
    )
    to, dtype = format_for(config, like), config.dtype or ("fp32" if computed else like.dtype)
    path = target(config.out, to)
    try:
        write_adapter(path, replace(like, layers=layers, info=info), to, dtype, metadata=config.metadata)
    except OSError as error:
        raise SystemFault(
            f"out={config.out}: cannot be written: {error.strerror or error}", "another folder"
        ) from error
    say(f"{path}  ({to}, {dtype}, {len(layers)} modules, {path.stat().st_size / 1e6:.1f} MB)")


def format_for(config: WritingTool, like: AdapterFile) -> str:
    """What was asked for, else that of what it is made of; but a .safetensors file is no folder, as peft's is."""
    if config.to is None and like.format == formats.PEFT and config.out.endswith(".safetensors"):
        return formats.DIFFUSERS
    return config.to or like.format


def target(out: str, to: str) -> Path:
    """Where a file goes. Raises ModelError when something is there, UsageError for a name of the wrong kind."""
    path = Path(out)
    if to == formats.PEFT:
        if path.suffix == ".safetensors":
            raise UsageError(f"out={out}: peft's format is a folder of two files", "out=FOLDER")
        path /= WEIGHTS
    elif path.suffix != ".safetensors":
        raise UsageError(f"out={out}: an adapter is a .safetensors file", f"out={out}.safetensors")
    taken = [one for one in (path, path.parent / CONFIG) if one.exists() and (one == path or to == formats.PEFT)]
    if taken:
        raise ModelError(f"out={out}: {taken[0]} exists already", "choose another name; nothing is overwritten")
    return path


def expression(pattern: str) -> re.Pattern[str]:
    """The user's own, compiled. Raises UsageError."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"pattern={pattern}: not a regular expression ({error})", "escape dots as \\.") from error


def say(text: str) -> None:
    """A line of the answer."""
    sys.stdout.write(text.rstrip("\n") + "\n")
