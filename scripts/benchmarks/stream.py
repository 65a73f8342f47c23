"""Start-up of the stream by the number of clips: python scripts/benchmarks/stream.py FOLDER [--clips 1000,100000,1000000].

Writes synthetic indexes (and sparse shards) under FOLDER, and the results to scripts/benchmarks/results/stream.json. Each
size is started in its own process; memory is that process's peak, with what the imports alone take beside it.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "stream.json"
CLIPS_PER_SHARD = 1000
CLIP_BYTES = 300_000
BUCKETS = [
    [height, width, frames] for height, width in ((576, 1024), (768, 768), (1024, 576)) for frames in (14, 25, 49)
]


def write_dataset(folder: Path, clips: int) -> None:
    """A dataset of `clips` clips in the prepared layout, without any video."""
    shards, entries = folder / "shards", []
    shards.mkdir(parents=True, exist_ok=True)
    held_out = max(1, clips // 100)
    for split, count in (("train", clips - held_out), ("held_out", held_out)):
        for number, first in enumerate(range(0, count, CLIPS_PER_SHARD)):
            inside = min(CLIPS_PER_SHARD, count - first)
            rows = [json.dumps(row(split, first + place, place), sort_keys=True) for place in range(inside)]
            text = ("\n".join(rows) + "\n").encode()
            name = f"{split}-{number:06d}"
            (shards / f"{name}.idx.jsonl").write_bytes(text)
            with (shards / f"{name}.tar").open("wb") as tar:
                tar.truncate(inside * CLIP_BYTES + 10240)
            entry = {"name": f"shards/{name}.tar", "bytes": inside * CLIP_BYTES + 10240, "sha256": "0" * 64}
            entries.append(entry | {"clips": inside, "index_sha256": hashlib.sha256(text).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "created_by": "benchmark", "shards": entries}))


def row(split: str, number: int, place: int) -> dict[str, object]:
    """About 500 bytes, as prepare writes them."""
    start = place * CLIP_BYTES
    return {
        "key": f"{split.replace('_', '-')}-{number // 10:07d}-some-video-{number % 10:03d}",
        "members": {"mp4": [start + 512, 299_000], "json": [start + 300_032, 180], "txt": [start + 301_056, 75]},
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "width": 1024,
        "height": 576,
        "frames": 96,
        "fps": 24.0,
        "source": f"{split}/folder/video-{number // 10}.mp4",
        "start": (number % 10) * 4.0,
        "caption": f"a caption of some words that say what is to be seen in clip number {number}",
        "motion": 12.345,
        "motion_bucket_id": number % 255 + 1,
        "blur": 123.456,
        "bucket": BUCKETS[number % len(BUCKETS)],
        "verified": True,
    }


def start(folder: Path) -> dict[str, float]:
    """Start a run's data from nothing, and again in the middle of its third epoch; in this process."""
    from svdtrain.data.datamodule import ClipDataModule

    imports = peak()
    data = ClipDataModule(
        str(folder),
        frames=14,
        height=576,
        width=1024,
        fps=None,
        motion_bucket=None,
        batch_size=32,
        workers=0,
        seed=0,
        horizontal_flip=False,
        max_batches=10**9,
        buckets=True,
        multiple=64,
    )
    moments = [time.perf_counter()]
    spent = [time.process_time()]

    def mark() -> None:
        moments.append(time.perf_counter())
        spent.append(time.process_time())

    clips = len(data.manifest.train)
    mark()
    fingerprint = data.manifest.fingerprint
    mark()
    next(data.order(32).batches())
    mark()
    list(islice(data.order(32).batches(int(2.5 * clips / 32)), 10))
    mark()
    assert len(fingerprint) == 64
    names = ("manifest", "fingerprint", "first_batch", "resume")
    rows: dict[str, float] = {}
    for name, begin, end, cpu_begin, cpu_end in zip(names, moments, moments[1:], spent, spent[1:], strict=False):
        rows |= {f"{name}_seconds": round(end - begin, 3), f"{name}_cpu_seconds": round(cpu_end - cpu_begin, 3)}
    total = round(sum(rows[f"{name}_seconds"] for name in names[:3]), 3)
    cpu = round(sum(rows[f"{name}_cpu_seconds"] for name in names[:3]), 3)
    memory = {"imports_mb": imports, "peak_mb": peak(), "growth_mb": round(peak() - imports, 1)}
    return {"start_seconds": total, "start_cpu_seconds": cpu, **rows, **memory}


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def processor() -> str:
    """The CPU's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Write, start, and note."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", default="1000,100000,1000000")
    parser.add_argument("--start", action="store_true", help="start from FOLDER, which is a dataset")
    options = parser.parse_args()
    if options.start:
        print(json.dumps(start(options.folder)))
        return
    results: dict[str, dict[str, float]] = {}
    for clips in map(int, options.clips.split(",")):
        folder = options.folder / str(clips)
        write_dataset(folder, clips)
        command = [sys.executable, __file__, str(folder), "--start"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[str(clips)] = json.loads(done.stdout)
        print(f"{clips:>9,} clips: {done.stdout.strip()}")
        shutil.rmtree(folder)
    report = {
        "command": "python scripts/benchmarks/stream.py FOLDER",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores of {processor()}, {platform.system()}, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 1),
        "clips": results,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
