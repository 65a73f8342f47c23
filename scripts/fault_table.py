"""docs/reference/faults.md, from what `python -m svdtrain selftest faults out=NEW` found:

`PYTHONPATH=. python scripts/fault_table.py NEW/faults.json` keeps it beside the page and writes the page and README's counts;
without a file, both are written again from what was kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.marked import with_part
from svdtrain.selftest.faults.row import GROUPS

ROOT = Path(__file__).parents[1]
KEPT, FAULTS, README = (ROOT / name for name in ("docs/results/faults.json", "docs/reference/faults.md", "README.md"))
BEGIN, END = "<!-- faults: scripts/fault_table.py -->\n", "<!-- end of faults -->\n"
LONGEST = 160
"""Characters of a line in the table; real ones have at most 200."""
MOST_LINES = 3
Rows = list[dict[str, Any]]


def kept_rows() -> Rows:
    """The results that the pages show."""
    return json.loads(KEPT.read_text())["rows"]


def table(rows: Rows) -> str:
    """A table for each group; of a row's answers, the first few that differ in what they say."""
    lines: list[str] = []
    for group, _ in GROUPS:
        lines += [f"\n### {group}\n", "| # | fault | exit | what svdtrain says |", "|---|---|---|---|"]
        for row in (row for row in rows if row["group"] == group):
            lines.append(f"| {row['number']} | {row['name']} | {_codes(row)} | {_said(row)} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def counts(rows: Rows) -> str:
    """How many rows of each group were answered as promised."""
    lines = ["| faults | tried | answered as promised |", "|---|---|---|"]
    for group, _ in GROUPS:
        states = Counter(row["state"] for row in rows if row["group"] == group)
        tried = states["ok"] + states["FAILED"]
        lines.append(f"| {group} | {tried} | {states['ok']} |")
    return "\n".join(lines) + "\n"


def with_faults(text: str, part: str) -> str:
    """The text with what stands between the marks made anew."""
    return with_part(text, BEGIN, END, part)


def _codes(row: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(str(answer["code"]) for answer in row["answers"]))


def _said(row: dict[str, Any]) -> str:
    if row["state"] != "ok":
        return f"({row['state']}: {row['why']})"
    lines = list(dict.fromkeys(_cell(answer["line"]) for answer in row["answers"] if answer["line"]))
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "<br>".join([*lines[:MOST_LINES], *more])


def _cell(line: str) -> str:
    """Numbers of processes and names of temporary files are others each time."""
    line = re.sub(r"process \d+ on [\w.-]+", "process N on HOST", line)
    line = re.sub(r"process \d+", "process N", line)
    line = re.sub(r"[0-9a-f]{32,}", "…", line)
    line = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return f"`{line.replace('|', '/').replace('`', chr(39))}`"


if __name__ == "__main__":
    if sys.argv[1:]:
        found = json.loads(Path(sys.argv[1]).read_text())
        plain = [{key: value for key, value in row.items() if key not in ("seconds", "said")} for row in found["rows"]]
        KEPT.write_text(json.dumps(found | {"rows": plain}, indent=1) + "\n")
    FAULTS.write_text(with_faults(FAULTS.read_text(), table(kept_rows())))
    README.write_text(with_faults(README.read_text(), counts(kept_rows())))
