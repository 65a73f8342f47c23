"""Captions of a vision-language model for the clips that have none; each is kept in the journal as soon as it is there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.preparation.journal import writing

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.config.preparation import PrepareConfig
    from svdtrain.preparation.journal import Journal
    from svdtrain.preparation.selection import Kept

MOST_FRAMES = 4


def described(kept: list[Kept], config: PrepareConfig, journal: Journal) -> list[Kept]:
    """The clips with captions where `config.captions` is vlm; as they are where it is files. ModelError as caption_clips."""
    if config.captions == "files" or config.model is None:
        return kept
    done = _read(journal.folder / "captions.jsonl", [config.model, config.prompt])
    silent = {one.clip.sha256: one for one in kept if one.caption is None}
    waiting = [one for digest, one in silent.items() if digest not in done]
    if waiting:
        done |= _ask(waiting, config, journal)
    return [replace(one, caption=one.caption or done.get(one.clip.sha256)) for one in kept]


def _ask(waiting: list[Kept], config: PrepareConfig, journal: Journal) -> dict[str, str]:
    from svdtrain.foundation.hardware import choose_device
    from svdtrain.preparation.vlm import caption_clips

    assert config.model
    answers: dict[str, str] = {}
    path = journal.folder / "captions.jsonl"
    clips = ((one.clip.sha256, _frames(one)) for one in waiting)
    for digest, caption in caption_clips(config.model, clips, config.prompt, device=str(choose_device("auto"))):
        answers[digest] = caption
        with writing(path), path.open("a") as file:
            file.write(json.dumps([[config.model, config.prompt], digest, caption]) + "\n")
    return answers


def _frames(one: Kept) -> np.ndarray:
    """A few frames of a finished clip: uint8 RGB [T, H, W, 3]."""
    data = one.path.read_bytes()
    if one.source.kind == "still":
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
    info = probe(data, one.key)
    places = np.unique(np.linspace(0, info.frames - 1, MOST_FRAMES).round().astype(int)).tolist()
    return decode_frames(data, places, one.key, info)


def _read(path: Path, asked: list[str]) -> dict[str, str]:
    """{sha256 of a clip: caption} of what this model said to this prompt before."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            made_with, digest, caption = json.loads(line)
        except ValueError:  # the line that a kill cut short
            continue
        if made_with == asked:
            found[digest] = caption
    return found
