"""Where an input of the fuzzer lies, the good things it is made from, and how it is handed to svdtrain."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from svdtrain.cli import main
from svdtrain.data.isolation import DecodeChild
from svdtrain.data.latent_cache import CacheRecipe, LatentCache, LatentEntry
from svdtrain.data.shards import write_index, write_samples
from svdtrain.foundation.errors import SvdtrainError
from svdtrain.generation.video_files import encode_mp4
from svdtrain.training.checkpoint import FolderCheckpoint
from tests.data.videos import video
from tests.tiny_models import FRAMES, SIZE
from tests.tiny_runs import moving_square

Answer = tuple[int, str]
"""Exit code and message; (0, "") where the input was taken as good."""
SECONDS = 5.0
SMALL: dict[str, Any] = {"height": 32, "width": 48}
VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"frames": 12, "g": "4"},
    "fragmented.mp4": {"frames": 12, "movflags": "frag_keyframe+empty_moov"},
    "fast_start.mov": {"container": "mov", "frames": 8, "movflags": "faststart", "rotation": 90},
    "sound.mp4": {"frames": 8, "sound": True},
    "hevc.mp4": {"codec": "libx265", "height": 64, "width": 96, "frames": 8, "params": "log-level=none"},
    "mpeg4.avi": {"codec": "mpeg4", "container": "avi", "frames": 8},
    "vp9.webm": {"codec": "libvpx-vp9", "container": "webm", "frames": 8},
    "h264.mkv": {"container": "matroska", "frames": 8, "bf": "2"},
    "mjpeg.avi": {"codec": "mjpeg", "container": "avi", "frames": 8, "pixels": "yuvj420p"},
    "h264.ts": {"container": "mpegts", "frames": 8},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg", "frames": 8},
    "prores.mov": {"codec": "prores_ks", "container": "mov", "frames": 4, "pixels": "yuv422p10le"},
}
RECIPE = CacheRecipe(
    "nano", "ab12", 3, 16, 24, buckets=False, fps=7.0, windows=2, flip=False, captions=False, dtype="float32"
)


@dataclass
class Place:
    """One input's: `folder` is its own, `world` is shared and only read."""

    world: Path
    folder: Path
    child: DecodeChild
    names: list[str] = field(default_factory=list[str])
    """One of these, or the folder, is in every message."""

    def write(self, name: str, content: bytes) -> Path:
        """A file in the input's own folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def copy(self, name: str) -> Path:
        """A folder of the world, to be changed."""
        return Path(shutil.copytree(self.world / name, self.folder / name))


def asked(call: Callable[[], object]) -> Answer:
    """What a call into svdtrain comes to. All but a SvdtrainError passes through."""
    try:
        call()
    except SvdtrainError as error:
        return error.exit_code, error.message
    return 0, ""


def commanded(words: list[str]) -> Answer:
    """A command line, in this process. AssertionError where it ends in anything but an `error:` line, or is accepted."""
    said, told = io.StringIO(), io.StringIO()

    def run(*more: str) -> int:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
            return main([*words, *more])

    with patch.object(sys, "argv", ["svdtrain", *words]):
        code = run()
    lines = [line for line in said.getvalue().splitlines() if not line.startswith("warning: ")]
    shape = [line.partition(": ")[0] for line in lines]
    if code == 0 and not {"error", "hint"} & set(shape):
        return 0, ""
    if code not in (2, 3, 4, 5, 6) or shape not in (["error"], ["error", "hint"]):
        run("--debug")
        raise AssertionError(f"exit code {code}: {said.getvalue()[:1500]} … {said.getvalue()[-1500:]}")
    return code, lines[0].removeprefix("error: ")


def make_world(world: Path) -> None:
    """Good videos, a prepared dataset, a checkpoint and a latent cache."""
    for name, options in VIDEOS.items():
        (world / "videos").mkdir(parents=True, exist_ok=True)
        (world / "videos" / name).write_bytes(video(**SMALL | options))
    picture = Image.fromarray(moving_square(0)[0])
    for name in ("still.png", "still.jpg", "still.webp"):
        picture.save(world / "videos" / name)
    _dataset(world / "dataset", (world / "videos/still.png").read_bytes())
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "moments": [torch.ones(2), (1, 2.5, None)]}
    FolderCheckpoint({"versions": {}}).save_checkpoint(
        {"global_step": 3, "state_dict": tensors}, world / "run/checkpoints/step-000003"
    )
    shutil.copytree(world / "run/checkpoints/step-000003", world / "run/checkpoints/step-000002")
    cache = LatentCache(world / "cache", RECIPE)
    cache.write_shard("train-000000", [("a", _entry(0)), ("b", _entry(1))])


def _dataset(folder: Path, still: bytes) -> None:
    rows: list[dict[str, Any]] = []
    for split, numbers in (("train", range(3)), ("held_out", range(3, 5))):
        data = {f"clip.{n}": encode_mp4(moving_square(n), 7) for n in numbers}
        about = {"fps": 7, "motion_bucket_id": 40, "caption": "a square", "source": {"path": "v.mp4"}}
        members = {
            key: {"mp4": mp4, "json": json.dumps(about | {"source": key}).encode(), "txt": b"a moving square"}
            for key, mp4 in data.items()
        }
        tar = folder / f"{split}-000000.tar"
        write_samples(tar, [*members.items(), *([("still", {"png": still})] if split == "train" else [])])
        known = {"fps": 7.0, "frames": FRAMES + 2, "height": SIZE, "width": SIZE, "bucket": [SIZE, SIZE, FRAMES]}
        index = write_index(
            tar,
            [
                known
                | {"key": key, "source": key, "caption": "a square", "verified": n % 2 == 0}
                | {"sha256": hashlib.sha256(mp4).hexdigest(), "motion_bucket_id": 40.0}
                for n, (key, mp4) in enumerate(data.items())
            ],
        )
        rows.append(shard_row(tar, index, len(data)))
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "shards": rows}))


def shard_row(tar: Path, index: Path, clips: int) -> dict[str, Any]:
    """What a manifest says of a shard."""
    return {
        "name": tar.name,
        "bytes": tar.stat().st_size,
        "sha256": hashlib.sha256(tar.read_bytes()).hexdigest(),
        "clips": clips,
        "index_sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
    }


def _entry(seed: int) -> LatentEntry:
    g = torch.Generator().manual_seed(seed)
    return LatentEntry(
        mean_RCHW=torch.randn(4, 4, 2, 3, generator=g),
        logvar_RCHW=torch.randn(4, 4, 2, 3, generator=g),
        rows_KT=torch.tensor([[0, 1, 2], [1, 2, 3]]),
        starts_K=torch.tensor([0.1, 0.3], dtype=torch.float64),
        fps=torch.tensor([7.0], dtype=torch.float64),
        images_KCHW=torch.randint(0, 256, (2, 3, 16, 24), generator=g, dtype=torch.uint8),
        embeddings_KLD=torch.from_numpy(np.full((2, 1, 5), 0.5, np.float32)),
    )


@contextlib.contextmanager
def own_folder(root: Path) -> Any:  # noqa: ANN401
    """An empty folder, which is the working directory and the home meanwhile; gone afterwards."""
    folder, before = root / f"input-{os.getpid()}", Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder)
