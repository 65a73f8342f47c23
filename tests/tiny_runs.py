"""Real fits, shrunk until they take seconds: the shipped recipes on a tiny random model and a few rendered clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from svdtrain.config import compose, overrides
from svdtrain.config.schema import FitConfig
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_models import FRAMES, SIZE

GEOMETRY = [f"model.frames={FRAMES}", f"model.height={SIZE}", f"model.width={SIZE}"]
SHORT = [
    "data.batch_size=2",
    "data.workers=0",
    "adapter.targets=both",
    "adapter.modules=attention_and_feed_forward",
    "adapter.rank=2",
    "optimizer.warmup_steps=0",
    "trainer.device=cpu",
    "trainer.max_steps=2",
    "trainer.log_every=1",
    "trainer.report=false",
    "validation.every=100",
    "validation.clips=1",
    "validation.sigmas=[0.5,10.0]",
    "validation.sample_every=100",
    "validation.sample_inputs=0",
    "validation.sampling_steps=1",
]


def moving_square(number: int, frames: int = FRAMES + 2, size: int = SIZE) -> np.ndarray:
    """uint8 [frames, size, size, 3]: a bright square that crosses a dark ground, its start and colour by number."""
    video_THWC = np.full((frames, size, size, 3), 50, np.uint8)
    colour = [(220, 120, 60), (60, 200, 160), (140, 90, 230)][number % 3]
    for time in range(frames):
        left, top = (3 * number + 2 * time) % (size - 10), (5 * number) % (size - 10)
        video_THWC[time, top : top + 10, left : left + 10] = colour
    return video_THWC


def save_tiny_dataset(folder: Path, *, train: int = 5, held_out: int = 2) -> Path:
    """Shards of short clips at 7 frames per second, with a held-out split."""
    clips = [
        (f"clip-{n}", encode_mp4(moving_square(n), 7), {"fps": 7, "motion_bucket_id": 40 * n % 256})
        for n in range(train + held_out)
    ]
    write_shard(folder / "train-000000.tar", clips[:train])
    write_shard(folder / "held_out-000000.tar", clips[train:])
    return folder


def save_picture(path: Path, height: int = SIZE, width: int = SIZE) -> Path:
    """A PNG of noise, the same every time."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def fit_words(model: Path, dataset: Path, *words: str) -> list[str]:
    """The words of a command line that fits a tiny model; the later ones win."""
    sources = [f"model.source={model}", f"data.source={dataset}"]
    given: dict[str, str] = {}
    for word in ["config=style_lora", *sources, *GEOMETRY, *SHORT, *words]:
        given[word.partition("=")[0]] = word
    return list(given.values())


def fit_config(model: Path, dataset: Path, *words: str) -> FitConfig:
    """The composed and checked config of such a command line."""
    [config] = compose.check(overrides.parse(fit_words(model, dataset, *words), "fit"), FitConfig)
    return config
