"""requirements.lock: constraints.txt with the sha256 of each file that pip chooses on this machine, for --require-hashes.

    pip install --dry-run --ignore-installed --no-deps --report REPORT -r constraints.txt
    python -m scripts.lock REPORT…

Several reports (the package index's torch is a CUDA build, another index has a CPU build) give several hashes a package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scripts.audit import pinned

ROOT = Path(__file__).parents[1]
HEADER = """\
# constraints.txt with hashes, by scripts/lock.py: CPython 3.11 on Linux x86_64; torch as CPU and as CUDA build.
# pip install --require-hashes --no-deps -r requirements.lock
# A CUDA build of torch wants its nvidia-* packages besides, which are not listed.
"""


def locked(pins: dict[str, str], reports: list[list[dict[str, object]]]) -> str:
    """The file's text. KeyError for a pin that a report lacks."""
    lines: list[str] = []
    found = [{one["metadata"]["name"].lower(): one["download_info"] for one in report} for report in reports]  # type: ignore[index,attr-defined]
    for name, version in pins.items():
        hashes = {report[name.lower()]["archive_info"]["hashes"]["sha256"] for report in found}  # type: ignore[index]
        lines.append(" \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{one}" for one in sorted(hashes))]))
    return HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    given = [json.loads(Path(report).read_text())["install"] for report in sys.argv[1:]]
    (ROOT / "requirements.lock").write_text(locked(pinned((ROOT / "constraints.txt").read_text()), given))
