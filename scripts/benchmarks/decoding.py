"""Our reader against plain decord and plain PyAV: python scripts/benchmarks/decoding.py [FOLDER OF VIDEOS] [--rounds 6].

Each video is brought into the normal form; then all readers take the same windows in turn, one thread each. CPU seconds are
counted, since other work may share the machine. Memory is that of one process that reads 2,000 clips. Writes
scripts/benchmarks/results/decoding.json.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import av
import cv2
import decord
import numpy as np
from av.container import InputContainer

from svdtrain.data.decoding import VideoInfo, decode_frames, every_frame, probe, verified_info
from svdtrain.data.encoding import encode_mp4
from svdtrain.data.frames import choose_times
from svdtrain.data.isolation import DecodeChild
from svdtrain.data.transforms import cover_size
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.seeding import key_to_seed

RESULTS = Path(__file__).parent / "results" / "decoding.json"
FRAMES, FPS = 14, 7.0
LENGTH = 96
STORED = {"1280x720": (720, 1280), "576x320": (320, 576)}
WANTED = {"as it is": None, "to cover 512x288": (288, 512)}
MANY = 2000
Size = tuple[int, int] | None
Reader = Callable[[bytes, list[int], VideoInfo, Size], np.ndarray]


def normal_form(path: Path, height: int, width: int) -> bytes:
    """The first frames of a video, at 24 frames per second."""
    shown = islice(every_frame(path.read_bytes(), path.name), LENGTH)
    frames = [cv2.resize(np.ascontiguousarray(p), (width, height), interpolation=cv2.INTER_AREA) for _, p in shown]
    return encode_mp4(np.stack(frames), 24)


def by_ours(data: bytes, indices: list[int], info: VideoInfo, size: Size) -> np.ndarray:
    """As the stream reads a verified clip: the index stands for the probe."""
    verified = verified_info(info.frames, info.fps, info.height, info.width)
    return decode_frames(data, indices, "clip", verified, size=size)


def by_ours_unverified(data: bytes, indices: list[int], info: VideoInfo, size: Size) -> np.ndarray:  # noqa: ARG001
    """As the stream reads a clip that no index knows."""
    return decode_frames(data, indices, "clip", probe(data, "clip"), size=size)


def by_plain_decord(data: bytes, indices: list[int], info: VideoInfo, size: Size) -> np.ndarray:  # noqa: ARG001
    """What its README shows, but by path: from bytes it keeps a copy of each clip."""
    height, width = size or (-1, -1)
    with os.fdopen(os.memfd_create("clip"), "wb") as file:
        file.write(data)
        file.flush()
        reader = decord.VideoReader(f"/proc/self/fd/{file.fileno()}", num_threads=1, width=width, height=height)
        return reader.get_batch(indices).asnumpy()


def by_plain_pyav(data: bytes, indices: list[int], info: VideoInfo, size: Size) -> np.ndarray:
    """Seek, decode up to the last frame, convert the wanted ones."""
    height, width = size or (info.height, info.width)
    wanted = {info.pts[index] for index in indices}
    found: list[np.ndarray] = []
    with av.open(io.BytesIO(data)) as container:
        assert isinstance(container, InputContainer)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(min(wanted), stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                found.append(frame.to_ndarray(format="rgb24", width=width, height=height, threads=1))
            if frame.pts is not None and frame.pts >= max(wanted):
                break
    return np.stack(found)


READERS: dict[str, Reader] = {
    "ours": by_ours,
    "ours, not verified": by_ours_unverified,
    "plain decord": by_plain_decord,
    "plain PyAV": by_plain_pyav,
}


def window(info: VideoInfo, number: int) -> list[int]:
    """Places of a training window."""
    place = key_to_seed("window", number) / 2**63
    return list(choose_times(info, FRAMES, FPS, place, "clip").indices)


def measure(data: bytes, size: tuple[int, int] | None, rounds: int) -> dict[str, float]:
    """CPU milliseconds per clip, by reader: the median of its windows, which all readers take in turn."""
    info = probe(data, "clip")
    assert not info.doubt, info.doubt
    wanted = cover_size(info.height, info.width, *size) if size else None
    spent: dict[str, list[float]] = {name: [] for name in READERS}
    for number in range(rounds):
        indices = window(info, number)
        names = list(READERS)[number % len(READERS) :] + list(READERS)[: number % len(READERS)]
        for name in names:
            start = time.process_time()
            frames_THWC = READERS[name](data, indices, info, wanted)
            spent[name].append(1000 * (time.process_time() - start))
            assert len(frames_THWC) == FRAMES
    return {name: round(statistics.median(times), 1) for name, times in spent.items()}


def cost_of_a_child(data: bytes, rounds: int) -> dict[str, float]:
    """CPU milliseconds per clip that asking a child takes from its parent, and seconds to start one."""
    info = probe(data, "clip")
    spent: list[float] = []
    start = time.perf_counter()
    with DecodeChild() as child:
        child.probe(data, "clip")
        started = time.perf_counter() - start
        for number in range(rounds):
            begin = time.process_time()
            child.decode_frames(bytes(bytearray(data)), window(info, number), "clip", info)
            spent.append(1000 * (time.process_time() - begin))
    return {"parent_cpu_ms": round(statistics.median(spent), 2), "start_seconds": round(started, 2)}


def read_many(path: Path) -> None:
    """In a process of its own: resident megabytes after every hundredth clip."""
    data = path.read_bytes()
    info = probe(data, "clip")
    sizes: list[float] = []
    for number in range(MANY):
        by_ours(bytes(bytearray(data)), window(info, number), info, (72, 128))
        if number % 100 == 99:
            match = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
            assert match
            sizes.append(round(int(match[1]) / 1024, 1))
    print(json.dumps(sizes))


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "av": version("av"),
        "decord": version("decord"),
    }


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/clips"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--read-many", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read_many:
        read_many(options.read_many)
        return
    rows: list[dict[str, object]] = []
    clips: dict[str, bytes] = {}
    for path in sorted(options.folder.glob("*.m[op]*")):
        try:
            clips |= {f"{path.name}, {name}": normal_form(path, *size) for name, size in STORED.items()}
            if probe(clips[f"{path.name}, 576x320"], path.name).frames < LENGTH:
                raise DataError(f"{path.name} is too short")
        except DataError as error:
            print(f"left out: {error.message}")
            clips = {name: data for name, data in clips.items() if not name.startswith(path.name)}
    for name, data in clips.items():
        for what, size in WANTED.items():
            rows.append({"clip": name, "pixels": what, "cpu_ms": measure(data, size, options.rounds)})
            print(json.dumps(rows[-1]))
    totals = {name: sum(row["cpu_ms"][name] for row in rows) for name in READERS}  # type: ignore[index]
    faster = min(totals["plain decord"], totals["plain PyAV"])
    small = next(data for name, data in clips.items() if "576x320" in name)
    memory = many_clips(small)
    results = {
        "machine": machine(),
        "window": {"frames": FRAMES, "fps": FPS, "clip_frames": LENGTH, "clip_fps": 24, "gop": 24},
        "clips_per_cpu_second": {name: round(1000 * len(rows) / total, 2) for name, total in totals.items()},
        "speed_against_the_faster": round(faster / totals["ours"], 3),
        "speed_against_the_faster_not_verified": round(faster / totals["ours, not verified"], 3),
        "isolation_576x320": cost_of_a_child(small, 2 * options.rounds),
        "resident_mb_by_hundred_clips": memory,
        "resident_spread": round(max(memory) / min(memory) - 1, 4),
        "rows": rows,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({name: value for name, value in results.items() if name != "rows"}, indent=1))


def many_clips(data: bytes) -> list[float]:
    """Resident megabytes along 2,000 clips, each with bytes of its own."""
    info = probe(data, "clip")
    frames = np.stack(
        [cv2.resize(np.ascontiguousarray(p), (160, 90)) for _, p in islice(every_frame(data, "clip"), info.frames)]
    )
    path = RESULTS.with_name(".clip.mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(encode_mp4(frames, float(Fraction(info.fps).limit_denominator(1001))))
        words = [sys.executable, __file__, "--read-many", str(path)]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
