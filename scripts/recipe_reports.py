"""The four recipes on the nano base, each fitted, evaluated, chosen from and reported: docs/results/reports.

`PYTHONPATH=. python scripts/recipe_reports.py WORK` fits what WORK has not yet, evaluates, chooses, and writes the pages, and
docs/results/reports.json and reports.md from what was found. Names after WORK: those alone. Without WORK: reports.md again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripts.marked import with_part
from svdtrain.cli import main

RESULTS = Path(__file__).parents[1] / "docs" / "results"
KEPT, PAGE, REPORTS = RESULTS / "reports.json", RESULTS / "reports.md", RESULTS / "reports"
RECIPES = ("style", "subject", "motion", "camera")
COMMANDS = (
    "fit config={name}_lora run_dir=WORK/{name} trainer.keep_adapters=true",
    "evaluate adapter=WORK/{name}",
    "choose WORK/{name} strengths=0.5,0.75,1,1.25",
    "report WORK/{name} out={out}",
)
BEGIN, END = "<!-- said: scripts/recipe_reports.py -->\n", "<!-- end of said -->\n"
Rows = dict[str, dict[str, Any]]


def made(name: str, work: Path) -> dict[str, Any]:
    """All four commands, and what came of them."""
    run, out = work / name, REPORTS / f"{name}.html"
    is_done = (run / "run.json").is_file() and json.loads((run / "run.json").read_text())["state"] == "done"
    for command in COMMANDS[1:] if is_done else COMMANDS:
        words = [word.format(name=name, out=out).replace("WORK", str(work)) for word in command.split(" ")]
        if code := main(words):
            raise SystemExit(code)
    record, evaluation, choice = (
        json.loads((run / file).read_text()) for file in ("run.json", "evaluation/evaluation.json", "choice.json")
    )
    return {
        "seconds": record["speed"]["training_seconds"],
        "verdict": evaluation["verdicts"]["adapter"],
        "held_out": evaluation["losses"]["held_out"]["arms"]["adapter"]["ratio"],
        "metrics": {
            metric: {arm: told["value"] for arm, told in one["arms"].items()}
            | {"says": one["against_base"]["adapter"]["says"]}
            for metric, one in evaluation["metrics"].items()
        },
        "choice": choice["sentence"],
    }


def kept() -> Rows:
    """What the page shows, by recipe."""
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def table(rows: Rows) -> str:
    """A row a recipe; below, each metric of each."""
    lines = ["| recipe | evaluated at strength 1 | chosen | page |", "|---|---|---|---|"]
    for name, row in rows.items():
        said = "; ".join([row["verdict"]["sentence"], *row["verdict"]["findings"]])
        lines.append(f"| {name} | {said} | {row['choice']} | [{name}.html](reports/{name}.html) |")
    lines += ["", "| recipe | metric | held-out clips | base | adapter | |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        for metric, one in row["metrics"].items():
            values = [f"{one[arm]:.3g}" if arm in one else "" for arm in ("held-out clip", "base", "adapter")]
            lines.append(f"| {name} | {metric.replace('_', ' ')} | {' | '.join(values)} | {one['says']} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, rows: Rows) -> str:
    """The page with what stands between its marks made anew."""
    return with_part(page, BEGIN, END, f"\n{table(rows)}\n")


if __name__ == "__main__":
    rows, work = kept(), sys.argv[1:2]
    for name in (sys.argv[2:] or RECIPES) if work else ():
        rows[name] = made(name, Path(work[0]).resolve())
        rows = {name: rows[name] for name in RECIPES if name in rows}
        KEPT.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), rows))
