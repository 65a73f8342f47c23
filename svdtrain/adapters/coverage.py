"""What each program would find in an adapter file, judged by names alone: no weights, no torch, no pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from svdtrain.adapters import formats
from svdtrain.adapters.files import CONFIG
from svdtrain.adapters.layer import LOHA, LOKR, MAGNITUDE, A, B
from svdtrain.adapters.programs import comfyui_names, comfyui_patches, motion_lora_patches
from svdtrain.adapters.targets import half_of
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from svdtrain.adapters.container import Container
    from svdtrain.adapters.layout import Layout

_PEFT_PARTS = (A, B, MAGNITUDE, *sorted(LOHA | LOKR))


@dataclass(frozen=True)
class Coverage:
    """What of a file a program takes."""

    modules: list[str]
    """Found, by their names in diffusers."""
    unread: list[str]
    """Keys that it passes over, in silence or with a line in its log."""
    faults: list[str] = field(default_factory=list)
    """What else is wrong for it."""

    @property
    def whole(self) -> bool:
        """Nothing is lost."""
        return bool(self.modules) and not self.unread and not self.faults

    def halves(self) -> str:
        """128 spatial, 128 temporal."""
        counts = {half: sum(half_of(m) == half for m in self.modules) for half in ("spatial", "temporal")}
        return ", ".join(f"{count} {half}" for half, count in counts.items() if count) or "none"


def coverage(program: str, file: Container, layout: Layout, settings: formats.Settings | None) -> Coverage:
    """By the program's own rules of naming."""
    if program in (formats.COMFYUI, formats.KOHYA):
        return _comfyui(program, file, layout, settings)
    if program == formats.MOTION_LORA:
        patches, unread = motion_lora_patches(file, layout)
        return Coverage(list(patches), unread, _scale_faults(patches, settings))
    prefixes = [formats.PEFT_PREFIX] if program == formats.PEFT else [f"{layout.component}.", ""]
    prefix = next((p for p in prefixes if p and any(key.startswith(p) for key in file.entries)), prefixes[-1])
    modules, unread = _by_prefix(file.entries, prefix, layout)
    faults: list[str] = []
    if program == formats.PEFT and not (file.path.parent / CONFIG).is_file():
        faults.append(f"{CONFIG} is not beside it")
    if program == formats.DIFFUSERS and settings is None and modules:
        alphas = {file.number(key) for key in file.entries if key.endswith(".alpha")}
        if alphas:
            faults.append("its alphas are keys, which diffusers does not read: it takes alpha = rank")
    return Coverage(modules, unread, faults)


def _by_prefix(keys: Iterable[str], prefix: str, layout: Layout) -> tuple[list[str], list[str]]:
    """PREFIX + MODULE + .lora_A.weight and so on, with modules as diffusers names them."""
    modules, unread = dict[str, None](), list[str]()
    for key in keys:
        name = key.removeprefix(prefix) if key.startswith(prefix) else ""
        part = next((p for p in _PEFT_PARTS if name.endswith(f".{p}")), "")
        module = name[: -len(part) - 1] if part else ""
        if module in layout.shapes:
            modules[module] = None
        else:
            unread.append(key)
    return list(modules), unread


def _comfyui(program: str, file: Container, layout: Layout, settings: formats.Settings | None) -> Coverage:
    if not layout.native:
        return Coverage([], list(file.entries), ["ComfyUI has no model with these modules"])
    patches, unread = comfyui_patches(file, layout)
    faults: list[str] = []
    names = comfyui_names(layout)
    silent = [
        m for name, m in names.items() if m in patches and f"{name}.alpha" not in file.entries and _has(file, name)
    ]
    faults += _scale_faults(silent, settings)
    if any(key.endswith((".dora_scale", MAGNITUDE)) for key in file.entries):
        faults.append("a DoRA: its versions disagree on the norm")
    if program == formats.KOHYA and (odd := [key for key in file.entries if not key.startswith("lora_")]):
        faults.append(f"{len(odd)} keys are not named lora_…")
    return Coverage(list(patches), unread, faults)


def _scale_faults(silent: Iterable[str], settings: formats.Settings | None) -> list[str]:
    """Of modules whose keys say nothing of a scale."""
    wrong = [scale for module in silent if not np.isclose(scale := _scale(settings, module), 1.0)]
    return [f"{len(wrong)} modules have no .alpha: it adds {1 / wrong[0]:g} times what was trained"] if wrong else []


def _scale(settings: formats.Settings | None, module: str) -> float:
    """What the settings say of a module; 1 where they say nothing that makes sense."""
    try:
        return settings.scale(module, None) if settings else 1.0
    except ValueError:
        return 1.0


def _has(file: Container, name: str) -> bool:
    return any(
        f"{name}.{part}" in file.entries for part in (A, "lora_down.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a")
    )


def faults_of_numbers(file: Container) -> tuple[list[str], dict[str, int]]:
    """(tensors that are not finite or no numbers at all, tensors by dtype)"""
    bad, dtypes = list[str](), dict[str, int]()
    for key, entry in file.entries.items():
        if entry.shape:
            dtypes[entry.dtype] = dtypes.get(entry.dtype, 0) + 1
        try:
            if not (
                np.isfinite(file.array(key)).all() if not key.endswith(".alpha") else np.isfinite(file.number(key))
            ):
                bad.append(key)
        except ModelError:
            bad.append(key)
    return bad, dtypes


def alpha_in_words(file: Container, settings: formats.Settings | None, stems: Mapping[str, Mapping[str, str]]) -> str:
    """Where a file states the scale of its weights."""
    stated = sum(formats.ALPHA in parts for parts in stems.values())
    if stated:
        return f"in {stated} of {len(stems)} modules" + (", and in its settings" if settings else "")
    if settings is None:
        return "nowhere: every program takes alpha = rank"
    return "in its header" if "lora_adapter_metadata" in file.metadata else f"in {CONFIG}"
