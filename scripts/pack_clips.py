"""Pack a plain folder of videos into shards: python scripts/pack_clips.py FOLDER OUT [--fps F] [--seconds S].

Each video is decoded frame by frame, cut into pieces, and encoded again in a form that every reader seeks exactly. For
small folders: all encoded pieces are held in memory until the held-out source videos are chosen.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from svdtrain.data.decoding import VideoInfo, every_frame, probe
from svdtrain.data.manifest import HELD_OUT_EVERY, held_out_sources
from svdtrain.data.shards import VIDEO_EXTENSIONS, write_shard
from svdtrain.foundation.errors import DataError, SvdtrainError
from svdtrain.generation.video_files import encode_mp4

if TYPE_CHECKING:
    from collections.abc import Iterator

Packed = tuple[str, bytes, dict[str, Any]]


def wanted_frames(info: VideoInfo, fps: float) -> list[int]:
    """For each moment, 1/fps apart, the nearest frame's place in display order."""
    moments_T = np.arange(int(info.duration * fps + 1.25)) / fps
    middles_T = (info.times_T[1:] + info.times_T[:-1]) / 2
    return np.searchsorted(middles_T, moments_T).tolist()


def shrink(picture_HWC: np.ndarray, short_side: int | None) -> np.ndarray:
    """The picture with its short side at most `short_side`, cropped to even sides (yuv420p)."""
    height, width = picture_HWC.shape[:2]
    if short_side and short_side < min(height, width):
        scale = short_side / min(height, width)
        pixels = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)[None]
        size = (round(height * scale), round(width * scale))
        picture_HWC = interpolate(pixels, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    return picture_HWC[: picture_HWC.shape[0] // 2 * 2, : picture_HWC.shape[1] // 2 * 2]


def pieces(
    data: bytes, info: VideoInfo, name: str, fps: float, length: int, short_side: int | None
) -> Iterator[np.ndarray]:
    """uint8 [length or fewer, H, W, 3] in order, at fps."""
    wanted = wanted_frames(info, fps)
    piece: list[np.ndarray] = []
    next_wanted = 0
    for place, (_, picture_HWC) in enumerate(every_frame(data, name)):
        while next_wanted < len(wanted) and wanted[next_wanted] == place:
            piece.append(shrink(picture_HWC, short_side))
            next_wanted += 1
            if len(piece) == length:
                yield np.stack(piece)
                piece = []
    if next_wanted < len(wanted):
        raise DataError(f"{name} is damaged: {len(wanted) - next_wanted} frames cannot be decoded")
    if piece:
        yield np.stack(piece)


def pack_video(path: Path, number: int, options: argparse.Namespace) -> list[Packed]:
    """The encoded pieces of one video that are long enough; DataError when there is none."""
    source = path.relative_to(options.folder).as_posix()
    data = path.read_bytes()
    info = probe(data, source)
    fps = options.fps or info.fps
    if fps > info.fps * 1.02:
        raise DataError(f"{source} has {info.fps:.4g} fps, {fps:.4g} are asked for")
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    length, least = max(2, round(options.seconds * fps)), round(options.least * fps)
    packed = []
    for index, frames_THWC in enumerate(pieces(data, info, source, fps, length, options.short_side)):
        if len(frames_THWC) < max(2, least):
            continue
        metadata = {"fps": fps, "frames": len(frames_THWC), "source": source, "start": index * length / fps}
        packed.append((f"{number:04d}-{slug}-{index:03d}", encode_mp4(frames_THWC, fps), metadata))
    if not packed:
        raise DataError(f"{source} is too short: {info.frames} frames, {info.duration:.2f} s")
    return packed


def pack_folder(options: argparse.Namespace) -> list[Packed]:
    """Every good piece of every video of the folder; what is left out is said."""
    paths = [path for path in sorted(options.folder.rglob("*")) if path.suffix.lower()[1:] in VIDEO_EXTENSIONS]
    if not paths:
        raise DataError(
            f"{options.folder} holds no videos", f"files that end in .{', .'.join(VIDEO_EXTENSIONS)} are read"
        )
    packed = []
    for number, path in enumerate(paths):
        name = path.relative_to(options.folder).as_posix()
        try:
            clips = pack_video(path, number, options)
        except DataError as error:
            print(f"skipped: {error.message}")
            continue
        print(f"{name}: {len(clips)} clips")
        packed += clips
    if len(packed) < 2:
        raise DataError(f"{len(packed)} clips came out of {len(paths)} videos, at least 2 are needed", "see above why")
    return packed


def split(packed: list[Packed]) -> dict[str, list[Packed]]:
    """Train and held-out clips, by source video; the last tenth where there is only one source."""
    chosen = held_out_sources(metadata["source"] for _, _, metadata in packed)
    last = len(packed) - max(1, len(packed) // HELD_OUT_EVERY)
    out = [clip[2]["source"] in chosen if chosen else place >= last for place, clip in enumerate(packed)]
    return {
        "train": [clip for clip, held in zip(packed, out, strict=True) if not held],
        "held_out": [clip for clip, held in zip(packed, out, strict=True) if held],
    }


def main() -> int:
    """Write OUT/train-*.tar and OUT/held_out-*.tar; nothing is overwritten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fps", type=float, help="take frames at this rate (default: each video's own)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default: 4)")
    parser.add_argument("--least", type=float, default=1.0, help="seconds that a last piece must have (default: 1)")
    parser.add_argument("--short-side", type=int, help="shrink pictures to this short side")
    parser.add_argument("--per-shard", type=int, default=256, help="clips per shard (default: 256)")
    options = parser.parse_args()
    try:
        if not options.folder.is_dir():
            raise DataError(f"{options.folder}: there is no such folder", "name a folder of videos")
        if options.out.exists() and any(options.out.iterdir()):
            raise DataError(f"{options.out} is not empty", "name a new folder: nothing is overwritten")
        for name, clips in split(pack_folder(options)).items():
            for shard in range(0, len(clips), options.per_shard):
                path = options.out / f"{name}-{shard // options.per_shard:06d}.tar"
                print(f"{path}: {write_shard(path, clips[shard : shard + options.per_shard])} clips")
    except SvdtrainError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
