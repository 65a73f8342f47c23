"""Folders to prepare, and what can be said of what came out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from svdtrain.data.decoding import every_frame
from svdtrain.data.encoding import encode_mp4
from tests.data.videos import number_of, video

ROOT = Path(__file__).parents[2]
QUICK = ["workers=1", "scenes=false", "duplicate_bits=null", "seconds=1", "least_seconds=0.5", "crf=10"]


def waves(seed: int, frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [frames, height, width, 3]: soft waves that drift, their shape and colour by seed."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    draw = np.random.default_rng(seed)
    waves = [np.sin(x / draw.uniform(4, 12) + y / draw.uniform(4, 12) + t / 5 + draw.uniform(0, 6)) for _ in range(3)]
    return (127.5 + 90 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def save_folder(folder: Path, videos: int = 4, frames: int = 25) -> Path:
    """Some different short videos at 25 frames per second, and a picture."""
    folder.mkdir(parents=True)
    for number in range(videos):
        (folder / f"wave {number}.mp4").write_bytes(encode_mp4(waves(number, frames), 25))
    Image.fromarray(waves(99, 1)[0]).save(folder / "still.png")
    return folder


def numbered(frames: int, **options: Any) -> bytes:  # noqa: ANN401
    """A video whose frames tell their number."""
    return video(frames=frames, **options)


def words(source: Path, out: Path, *more: str) -> list[str]:
    """A command line with quick settings; the later words win."""
    given = {word.partition("=")[0]: word for word in ["prepare", f"source={source}", f"out={out}", *QUICK, *more]}
    return list(given.values())


def command(source: Path, out: Path, *more: str) -> list[str]:
    """The same as a program."""
    return [sys.executable, "-m", "svdtrain", *words(source, out, *more)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A whole run in its own process."""
    return subprocess.run(
        command(source, out, *more), env=environment(), capture_output=True, text=True, check=False, timeout=120
    )


def bytes_of(out: Path) -> dict[str, str]:
    """{path: sha256} of a dataset, without its work folder."""
    files = [path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "work"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def index_rows(out: Path) -> dict[str, dict[str, Any]]:
    """{key: row} of every index; `data` is the video or picture that the row points at, `shard` its tar."""
    found: dict[str, dict[str, Any]] = {}
    for index in sorted((out / "shards").glob("*.idx.jsonl")):
        shard = index.with_name(index.name.replace(".idx.jsonl", ".tar"))
        for row in rows(index):
            (medium,) = row["members"].keys() - {"json", "txt"}
            offset, size = row["members"][medium]
            found[row["key"]] = row | {"data": shard.read_bytes()[offset : offset + size], "shard": shard.name}
    return found


def numbers_in(mp4: bytes) -> list[int]:
    """The number of every frame."""
    return [number_of(picture_HWC) for _, picture_HWC in every_frame(mp4, "it")]
