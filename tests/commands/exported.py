"""A folder as export writes it, and the command that pushes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from svdtrain.cli import main

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "hf_not_a_real_token"
CARD = "---\nlicense: mit\n---\n# Ink\n"


def save_export(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    """What export writes: weights, a card, a sidecar, samples in a folder of their own."""
    random = np.random.default_rng(0)
    (folder / "samples").mkdir(parents=True)
    header = {"svdtrain.model": "nano"} if metadata is None else metadata
    save_file({"a": random.random((300, 300), np.float32)}, folder / "ink.safetensors", metadata=header)
    (folder / "README.md").write_text(CARD)
    (folder / "ink.metadata.json").write_text('{"rank": 16}')
    (folder / "samples" / "before after.mp4").write_bytes(random.bytes(70_000))
    (folder / "samples" / "sheet.png").write_bytes(random.bytes(3_000))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(folder: Path, *words: str) -> int:
    """The exit code; to me/ink unless the words say otherwise."""
    given = {f"folder={folder}": "folder", "repo=me/ink": "repo"}
    keys = {word.partition("=")[0] for word in words}
    return main(["push", *(word for word, key in given.items() if key not in keys), *words])
