"""Thousands of bad inputs, each accepted or refused in one line: PYTHONPATH=. python scripts/soak/fuzz.py --inputs 10000.

What an input is follows from (seed, kind, number) alone; tests/fuzz makes and judges them, in child processes. A finding is
anything but an acceptance or an error line that names the file or key in at most 200 characters: another exception, more than
5 s, more than 1 GB, a process that died. Written to scripts/soak/results/fuzz.json; exit code 1 where there are findings.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import svdtrain
from tests.fuzz.driver import numbers, run
from tests.fuzz.verdict import KINDS, Verdict

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
PACKAGES = (
    "torch",
    "av",
    "hydra-core",
    "omegaconf",
    "pydantic",
    "safetensors",
    "numpy",
    "pytorch-lightning",
)


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What a kind's inputs came to."""
    refused = Counter(one.code for one in verdicts if one.code and not one.finding)
    slowest = max(verdicts, key=lambda one: one.seconds)
    return {
        "inputs": len(verdicts),
        "accepted": sum(one.code == 0 for one in verdicts),
        "refused_by_exit_code": dict(sorted(refused.items())),
        "decoder_crashes_contained": sum("crashes the decoder" in one.message for one in verdicts),
        "findings": sum(bool(one.finding) for one in verdicts),
        "slowest": {"number": slowest.number, "seconds": round(slowest.seconds, 3)},
        "median_seconds": round(sorted(one.seconds for one in verdicts)[len(verdicts) // 2], 4),
        "peak_memory_mb": round(max(one.memory for one in verdicts) / 1e6),
        "longest_message": max(len(one.message) for one in verdicts if not one.finding),
    }


def commit() -> str:
    """Of this checkout, and whether files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def main(argv: list[str]) -> int:
    """Run, count, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    start, verdicts = time.monotonic(), list[Verdict]()
    for verdict in run(numbers(given.inputs), given.seed, processes=given.processes):
        verdicts.append(verdict)
        if verdict.finding:
            print(f"{verdict.kind} {verdict.number}: {verdict.finding[:300]!r}", flush=True)
        if len(verdicts) % 500 == 0:
            print(f"{len(verdicts):,} of {given.inputs:,} in {time.monotonic() - start:.0f} s", flush=True)
    findings = [asdict(one) for one in verdicts if one.finding]
    result = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["PYTHONPATH=. python", *sys.argv]),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": {"svdtrain": svdtrain.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "seed": given.seed,
        "inputs": len(verdicts),
        "findings": len(findings),
        "total_seconds": round(time.monotonic() - start, 1),
        "peak_memory_mb": round(max(one.memory for one in verdicts) / 1e6),
        "kinds": {kind: summary(found) for kind in KINDS if (found := [one for one in verdicts if one.kind == kind])},
        "what_was_found": findings,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(findings)} findings in {len(verdicts):,} inputs, {result['total_seconds']} s")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
