"""Render the demo sets and the pre-training world: python scripts/demo_sets/render.py SET OUT [--train N] [--held-out N]."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
from pathlib import Path
from typing import Any

from world import FRAMES, SETS, SIZE, render, scene_of

from svdtrain.data.clip import Shard
from svdtrain.data.shards import index_rows, write_index, write_shard
from svdtrain.data.sources import FORMAT
from svdtrain.generation.video_files import encode_mp4
from svdtrain.preparation.verification import read_back


def clip(job: tuple[str, str, int]) -> tuple[str, bytes, dict[str, Any]]:
    """One encoded clip of a set; its seed is a pure function of set, split and number."""
    name, split, number = job
    source = f"{name}/{split}/{number}"
    scene = scene_of(source)
    metadata = {"fps": scene.fps, "motion_bucket_id": scene.motion_bucket_id, "source": source}
    return f"{name}-{split}-{number:05d}", encode_mp4(render(scene), scene.fps), metadata


def vouched(shard: Path) -> dict[str, Any]:
    """The shard's row of the manifest, after its index is written: every clip read back by both readers."""
    content = shard.read_bytes()
    rows: list[dict[str, Any]] = []
    for row in index_rows(Shard(shard)):
        offset, size = row["members"]["mp4"]
        video = content[offset : offset + size]
        known = {"frames": FRAMES, "height": SIZE, "width": SIZE, "sha256": hashlib.sha256(video).hexdigest()}
        rows.append(row | known | {"verified": read_back(video, FRAMES, row["key"])})
    index = write_index(shard, rows).read_bytes()
    return {
        "name": shard.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "clips": len(rows),
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }


def main() -> None:
    """Write OUT/train-*.tar and OUT/held_out-000000.tar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--per-shard", type=int, default=1000)
    options = parser.parse_args()
    with multiprocessing.Pool() as pool:
        for split, count in (("train", options.train), ("held_out", options.held_out)):
            clips = pool.imap(clip, ((options.set, split, n) for n in range(count)), chunksize=8)
            for shard in range((count + options.per_shard - 1) // options.per_shard):
                part = itertools.islice(clips, options.per_shard)
                write_shard(options.out / f"{split}-{shard:06d}.tar", part)
        entries = pool.map(vouched, sorted(options.out.glob("*.tar")), chunksize=1)
    facts = {"format": FORMAT, "created_by": "scripts/demo_sets/render.py", "set": options.set, "shards": entries}
    (options.out / "manifest.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{options.set}: {options.train} train and {options.held_out} held-out clips in {options.out}")


if __name__ == "__main__":
    main()
