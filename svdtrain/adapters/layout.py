"""The modules of a denoiser that an adapter can sit on: of a live one, of weights on disk, or as a packaged table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.container import Container
from svdtrain.adapters.names import spellings, stability_names
from svdtrain.adapters.targets import half_of
from svdtrain.foundation.errors import ModelError, shown
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]
LONGEST_NAME = 255
"""Bytes that a file system takes for the name of a folder."""
COMPONENTS = ("unet", "transformer")


@dataclass(frozen=True, eq=False)
class Layout:
    """Weight matrices by the names of their modules in diffusers."""

    shapes: Mapping[str, tuple[int, ...]]
    component: str = "unet"
    """The pipeline's name for the denoiser."""

    @cached_property
    def native(self) -> Mapping[str, str]:
        """Module -> name in Stability's code and in ComfyUI; empty where ComfyUI has no such model."""
        return stability_names(self.shapes)

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """Every known spelling -> module."""
        return spellings(self.shapes)


def layout_of(denoiser: nn.Module) -> Layout:
    """Of a live denoiser, with or without adapters in it."""
    from svdtrain.adapters.targets import adaptable_weights

    shapes = {name: tuple(weight.shape) for name, weight in adaptable_weights(denoiser).items()}
    blocks = any(name.startswith("down_blocks.") for name in shapes)
    return Layout(shapes, "unet" if blocks else "transformer")


class BaseWeights:
    """A denoiser's safetensors on disk, read one tensor at a time and without torch."""

    def __init__(self, folder: Path, component: str) -> None:
        """Raises ModelError when the folder holds no whole safetensors weights."""
        self.folder = folder
        shards = weight_files(folder)
        self._tensors = {name: one for one in map(Container, shards) for name in one.entries}
        shapes = {name: self._tensors[name].entries[name].shape for name in self._tensors}
        self.layout = Layout(
            {name.removesuffix(".weight"): s for name, s in shapes.items() if name.endswith(".weight") and len(s) > 1},
            component,
        )

    @classmethod
    def of_pipeline(cls, place: Path) -> BaseWeights:
        """The denoiser of a diffusers folder (or the denoiser's own folder). Raises ModelError, also for one of pictures."""
        if not place.is_dir():
            raise ModelError(f"base={place}: there is no such folder", "base=FOLDER of a diffusers model")
        component = next((name for name in COMPONENTS if (place / name).is_dir()), None)
        if component:
            base = cls(place / component, component)
        else:
            base = cls(place, "transformer" if _class_name(place).endswith("Transformer3DModel") else "unet")
        if base.layout.component == "unet" and all(half_of(module) == "spatial" for module in base.layout.shapes):
            hint = "base=FOLDER of a pipeline that was saved with its motion modules; without base= names alone count"
            raise ModelError(f"base={place}: a model of pictures, half of one of videos", hint)
        return base

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor."""
        return {name: one.entries[name].shape for name, one in self._tensors.items()}

    def tensor(self, name: str) -> Array:
        """One tensor as fp32."""
        return self._tensors[name].array(name)

    def weight(self, module: str) -> Array:
        """A module's weight, fp32."""
        return self.tensor(f"{module}.weight")


def base_folder(place: str) -> Path:
    """The diffusers folder of a base: a folder, a packaged model's name, or a Hub id (ID or ID@REVISION) in the cache.

    Raises ModelError when it is none of these; nothing is downloaded.
    """
    if max(len(part.encode()) for part in place.split("/")) > LONGEST_NAME:
        raise ModelError(f"base={shown(place)}: there is no such folder", "base=FOLDER, OWNER/NAME or nano")
    path, packed = Path(place), packaged("assets") / place
    if "/" not in place and (packed / "model_index.json").is_file():
        return packed  # ./nano is a folder of that name
    if path.is_dir():
        return path
    if place.count("/") == 1 and not place.startswith((".", "/", "~")):
        from huggingface_hub import try_to_load_from_cache

        name, _, revision = place.partition("@")
        try:
            index = try_to_load_from_cache(name, "model_index.json", revision=revision or None)
        except ValueError as error:
            raise ModelError(
                f"base={place}: no such folder, and no Hub id", "base=FOLDER, OWNER/NAME or nano"
            ) from error
        if isinstance(index, str):
            return Path(index).parent
        fetch = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        raise ModelError(
            f"base={place}: no such folder, and no such model in the Hub's cache", f"fetch it with: {fetch}"
        )
    raise ModelError(f"base={place}: there is no such folder", "base=FOLDER of a diffusers model, a Hub id, or nano")


def weight_files(folder: Path) -> list[Path]:
    """The one set of weights of a model's folder: the plain one, else the only variant. Raises ModelError."""
    for name in ("diffusion_pytorch_model", "model"):
        plain = folder / f"{name}.safetensors"
        if plain.is_file():
            return [plain]
        indexes = sorted(folder.glob(f"{name}.safetensors.index*.json"))
        whole = [file for file in sorted(folder.glob(f"{name}.*.safetensors")) if "-of-" not in file.name]
        if f"{name}.safetensors.index.json" in [index.name for index in indexes] or (not whole and len(indexes) == 1):
            return _shards(folder, indexes[0])
        if len(whole) == 1:
            return whole
        if whole or indexes:
            variants = ", ".join(file.name for file in [*whole, *indexes])
            raise ModelError(f"base={folder}: which of {variants}?", "leave one of them in the folder")
    raise ModelError(f"base={folder}: holds no safetensors weights", "base=FOLDER of a diffusers model")


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: cannot be read ({error})", "fetch the model again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(
            f"{index}: {len(missing)} of its {len(names)} files are missing, first {missing[0]}", "fetch it again"
        )
    return [folder / name for name in names]


def _class_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text()).get("_class_name", ""))
    except (OSError, ValueError):
        return ""


def packaged_layouts() -> dict[str, Layout]:
    """By model or family: those of the published models, so that files can be judged without their weights."""
    found: dict[str, Layout] = {}
    for file in sorted((packaged("assets") / "layouts").glob("*.json")):
        table = json.loads(file.read_text())
        found[file.stem] = Layout({name: tuple(s) for name, s in table["shapes"].items()}, table["component"])
    return found
