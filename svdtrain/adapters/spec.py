"""What an adapter is, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 2000
"""Of a header's text: it may come from anyone."""
KINDS = ("lora", "rslora", "dora", "loha", "lokr")


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
    kind: str = "lora"
    """One of KINDS."""
    blocks: tuple[str, ...] = ()
    """Only modules under these (down_blocks.1, mid_block, …); empty: everywhere."""
    factor: int = -1
    """LoKr: the size of its first factor; -1 makes both about as large."""


@dataclass(frozen=True)
class AdapterInfo:
    """What the header of an adapter file says about its making (all of it optional for foreign files)."""

    model: str = ""
    """Name of the model config it was trained with."""
    family: str = ""
    architecture: str = ""
    """In ModelSpec's words."""
    source: str = field(default="", metadata={"private": True})
    """Local folder of the base, when it was not the model config's own."""
    base: str = ""
    """Hub id or name of the base."""
    base_revision: str = ""
    base_fingerprint: str = ""
    recipe: str = ""
    kind: str = ""
    targets: str = ""
    fps: str = ""
    resolution: str = ""
    """WIDTHxHEIGHT that it was trained at."""
    motion_bucket: str = ""
    """Of the training clips: a number, or least-most."""
    rank: str = ""
    alpha: str = ""
    steps: str = ""
    dataset: str = ""
    """Fingerprint of the manifest; no name, no path."""
    data_source: str = field(default="", metadata={"private": True})
    results: str = ""
    """Held-out loss as a ratio to the base's, by noise level, as JSON."""
    made_by: str = ""
    """The commands of the toolbox that changed it since, with their numbers."""
    version: str = ""

    @classmethod
    def from_header(cls, metadata: Mapping[str, str]) -> AdapterInfo:
        """The svdtrain.* entries of a file's header; unknown ones are left alone."""
        known = {one.name for one in fields(cls)}
        named = {key.removeprefix("svdtrain."): text for key, text in metadata.items() if key.startswith("svdtrain.")}
        plain = {key: "".join(filter(str.isprintable, text))[:LONGEST] for key, text in named.items() if key in known}
        return cls(**plain)

    def header(self, *, private: bool) -> dict[str, str]:
        """As header entries; paths and names of one's own only when asked for."""
        shown = [one for one in fields(self) if private or not one.metadata.get("private")]
        return {f"svdtrain.{one.name}": redacted(text, one.name) for one in shown if (text := getattr(self, one.name))}


def measured(info: AdapterInfo) -> dict[str, Any]:
    """`results` as fit writes them: held_out_loss_ratio, by_noise_level; empty for anything else that a header may say."""
    try:
        told = json.loads(info.results or "{}")
        numbers = [told["held_out_loss_ratio"], *told["by_noise_level"].values()]
        return told if all(isinstance(number, int | float) for number in numbers) else {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
