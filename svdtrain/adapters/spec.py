"""What an adapter is, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HalfSpec:
    """The adapter on one half (spatial or temporal) of a denoiser."""

    pattern: str
    """Regular expression that matches full module names."""
    rank: int
    alpha: float
    learning_rate: float


@dataclass(frozen=True)
class AdapterSpec:
    """Halves that are adapted, by name."""

    halves: dict[str, HalfSpec]


@dataclass(frozen=True)
class AdapterInfo:
    """What the header of an adapter file says about its making (all of it optional for foreign files)."""

    model: str = ""
    """Name of the model config it was trained with."""
    source: str = ""
    """Local folder of the base, when it was not the model config's own."""
    base: str = ""
    """Hub id or name of the base."""
    base_fingerprint: str = ""
    recipe: str = ""
    targets: str = ""
    fps: str = ""
    motion_bucket: str = ""
    rank: str = ""
    alpha: str = ""
    steps: str = ""
    version: str = ""
