"""Where the payloads of a test lie, and the command lines that read them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_runs import fit_words, moving_square

if TYPE_CHECKING:
    from pathlib import Path

Rows = dict[str, list[str]]
"""Name -> command line."""


class World:
    """A folder with good things (model, data, run) and a place for bad ones; results go to `out`."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "out"
        self.bad = root / "bad"
        self.model, self.data, self.run = root / "model", root / "data", root / "run"
        self.count = 0

    def marker(self, name: str) -> Path:
        return self.root / "markers" / name.replace(" ", "_")

    def new(self, name: str) -> str:
        self.count += 1
        return str(self.out / f"{self.count:03d}-{name}")

    def fit(self, *words: str) -> list[str]:
        steps = ["trainer.max_steps=1", f"run_dir={self.new('run')}", "adapter.targets=temporal"]
        return ["fit", *fit_words(self.model, self.data, *steps, *words)]

    def generate(self, *words: str) -> list[str]:
        sizes = ["model.frames=3", "model.height=32", "model.width=32", "steps=1", "device=cpu", "model=nano"]
        given = ["base_only=true", f"model.source={self.model}", f"image={self.root / 'a.png'}", *sizes, *words]
        return ["generate", *{word.partition("=")[0]: word for word in given}.values(), f"out={self.new('video')}.mp4"]

    def copy(self, what: str, name: str) -> Path:
        shutil.copytree(self.root / what, self.bad / name, symlinks=True)
        return self.bad / name

    def folder(self, name: str) -> Path:
        (self.bad / name).mkdir(parents=True)
        return self.bad / name


def write_clips(folder: Path) -> None:
    """A good dataset."""
    clips = [(f"c{n}", encode_mp4(moving_square(n), 7), {"fps": 7}) for n in range(4)]
    write_shard(folder / "train-000000.tar", clips[:3])
    write_shard(folder / "held_out-000000.tar", clips[3:])
