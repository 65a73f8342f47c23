"""What prepare does with its time: python scripts/benchmarks/prepare.py FOLDER [--seconds 2] [--short-side 320].

Every video of FOLDER becomes clips in this one process; CPU seconds by stage go to scripts/benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from svdtrain.config import compose, overrides
from svdtrain.config.preparation import PrepareConfig
from svdtrain.preparation import clips
from svdtrain.preparation.discovery import list_sources
from svdtrain.preparation.journal import Journal
from svdtrain.preparation.one_source import prepare_source

RESULTS = Path(__file__).parent / "results" / "prepare.json"
STAGES = {
    "probe": ("probe",),
    "find scene cuts": ("_cuts",),
    "find letterbox": ("_bars",),
    "crop and resize": ("cropped", "resized", "_small"),
    "measure motion": ("motion_score",),
    "measure quality": ("measure",),
    "hash for duplicates": ("signature",),
    "read back with both readers": ("read_back",),
}
"""Stage -> the functions of preparation/clips.py that do it."""


class Clock:
    """CPU seconds by stage; a stage inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.inside: list[float] = []

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            start = time.process_time()
            self.inside.append(0.0)
            try:
                return work(*args, **options)
            finally:
                spent = time.process_time() - start
                self.seconds[stage] += spent - self.inside.pop()
                if self.inside:
                    self.inside[-1] += spent

        return counted

    def frames(self, decode: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """A generator, each step of which is counted."""

        def counted(*args: Any) -> Iterator[Any]:  # noqa: ANN401
            step = self.timed("decode", decode(*args).__next__)
            while True:
                try:
                    yield step()
                except StopIteration:
                    return

        return counted


def main() -> None:
    """Prepare, and note."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--short-side", type=int, default=320)
    options = parser.parse_args()
    clock, kept, rejected = Clock(), 0, 0
    for stage, names in STAGES.items():
        for name in names:
            setattr(clips, name, clock.timed(stage, getattr(clips, name)))
    clips.every_frame = clock.frames(clips.every_frame)
    for name in ("write", "finish"):
        setattr(clips.Mp4Writer, name, clock.timed("encode", getattr(clips.Mp4Writer, name)))
    with tempfile.TemporaryDirectory() as out:
        words = [f"source={options.folder}", f"out={out}/data", f"seconds={options.seconds}"]
        words += [f"short_side={options.short_side}"]
        [config] = compose.check(overrides.parse(words, "prepare"), PrepareConfig)
        journal = Journal.open(Path(out) / "work", config)
        start = time.process_time()
        sources = [source for source in list_sources(options.folder).sources if source.kind == "video"]
        for source in sources:
            result = prepare_source(source, lambda: None, config=config, journal=journal)
            kept, rejected = kept + len(result.clips), rejected + len(result.rejected)
        total = time.process_time() - start
    clock.seconds["all else"] = total - sum(clock.seconds.values())
    per_clip = {stage: seconds / max(1, kept) for stage, seconds in clock.seconds.items()}
    report = {
        "command": "python scripts/benchmarks/prepare.py FOLDER",
        "settings": {"seconds": options.seconds, "short_side": options.short_side},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"1 of {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 1),
        "sources": len(sources),
        "clips_kept": kept,
        "clips_rejected": rejected,
        "clips_per_second_per_core": round(kept / total, 2),
        "cpu_seconds_per_clip": round(total / max(1, kept), 3),
        "cpu_seconds_per_clip_by_stage": {k: round(v, 4) for k, v in sorted(per_clip.items(), key=lambda row: -row[1])},
        "clips_per_second_by_stage": {
            k: round(1 / v, 1) for k, v in sorted(per_clip.items(), key=lambda row: row[1]) if v
        },
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
