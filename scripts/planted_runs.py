"""Twelve runs on the nano base with known faults, or none, and whether `evaluate` finds each.

`PYTHONPATH=. OMP_NUM_THREADS=1 python scripts/planted_runs.py WORK` fits and evaluates what WORK has not yet, one after the
other in this process, and writes docs/results/planted.json and planted.md. Names after WORK: those runs alone, beside what was
kept of the others. Without WORK the page is written again from what was kept.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.marked import with_part
from scripts.planted_sets import GENERIC, save_set
from svdtrain.cli import main

ROOT = Path(__file__).parents[1]
KEPT, PAGE = (ROOT / "docs" / "results" / name for name in ("planted.json", "planted.md"))
COMMAND = "PYTHONPATH=. OMP_NUM_THREADS=1 python scripts/planted_runs.py WORK"
PACKAGES = ("svdtrain", "torch", "diffusers", "peft", "numpy", "opencv-python-headless")
ARM = "adapter"
"""The adapter at strength 1."""
FIT = (
    "data.batch_size=1",
    "data.workers=0",
    "trainer.device=cpu",
    "trainer.max_steps=30",
    "trainer.keep_best=false",
    "trainer.save_every=10",
    "validation.every=1000",
    "validation.clips=1",
    "validation.sigmas=[2]",
    "validation.sample_every=1000",
    "validation.sample_inputs=0",
    "optimizer.warmup_steps=5",
)
LOSSES = ("device=cpu", "clips=5", "training_clips=4", "sigmas=0.5,5", "inputs=0")
VIDEOS = (
    *LOSSES,
    "training_clips=0",
    "inputs=4",
    "steps=6",
    "model.guidance=1",
    "metrics=motion,nearest_training_frame",
)
ON_WORLD = (f"generic=WORK/{GENERIC}", "generic_clips=4")


@dataclass(frozen=True)
class Planted:
    """A run, what is wrong with it, and what must be said of it."""

    name: str
    what: str
    sets: str
    """A key of SETS."""
    fit: tuple[str, ...]
    """Beside FIT; later words win."""
    evaluate: tuple[str, ...]
    kind: str | None
    """Of the verdict; None: any, as the fault is one of videos."""
    finding: str = ""
    """How one finding begins; empty: there may be none."""

    @property
    def commands(self) -> tuple[str, str]:
        """Of the fit and of the evaluation, in a folder called WORK."""
        run = f"WORK/{self.name.replace(' ', '_')}"
        fit = _last(*FIT, *self.fit, f"data.source=WORK/{self.sets}", f"run_dir={run}")
        return f"fit {fit}", f"evaluate {_last(f'adapter={run}', *self.evaluate)}"

    @property
    def expected(self) -> str:
        """In words."""
        return self.finding or str(self.kind)


STYLE, SUBJECT, MOTION, CAMERA = (f"config={name}_lora" for name in ("style", "subject", "motion", "camera"))
GENTLE, FAST = "optimizer.learning_rate=1e-3", "optimizer.learning_rate=6e-3"
SHORT, LONG = "trainer.max_steps=20", "trainer.max_steps=80"
HARD = ("adapter.rank=64", "trainer.max_steps=40", "trainer.save_every=20", "trainer.keep_adapters=true")
RUNS = (
    Planted("healthy style", "nothing", "style", (STYLE, SHORT), VIDEOS, "improving"),
    Planted("healthy subject", "nothing", "subject_and_world", (SUBJECT, GENTLE), (*VIDEOS, *ON_WORLD), "improving"),
    Planted("healthy motion", "nothing", "motion", (MOTION,), VIDEOS, "improving"),
    Planted("healthy camera", "nothing", "camera", (CAMERA, LONG), (*VIDEOS, "clips=8"), "improving"),
    Planted("over-fit both", "two clips, rank 64", "two_clips", (SUBJECT, *HARD), LOSSES, "over-fitting"),
    Planted("over-fit temporal", "two clips, rank 64", "two_clips", (MOTION, *HARD), LOSSES, "over-fitting"),
    Planted("freeze subject", "stills", "frozen_subjects", (SUBJECT,), VIDEOS, None, "motion is lost"),
    Planted("freeze motion", "stills", "frozen_motions", (MOTION,), VIDEOS, None, "motion is lost"),
    Planted(
        "forgetting style",
        "style only",
        "style",
        (STYLE, FAST, SHORT),
        (*LOSSES, *ON_WORLD, "strengths=0.25,1"),
        "forgetting",
    ),
    Planted("forgetting flash", "a flash", "flashing_subjects", (SUBJECT, SHORT), (*LOSSES, *ON_WORLD), "forgetting"),
    Planted(
        "copy", "clips that end in a blank screen", "ended_subjects", (SUBJECT,), VIDEOS, None, "copies training frames"
    ),
    Planted(
        "nothing learnt", "a rate of 1e-7", "style", (STYLE, "optimizer.learning_rate=1e-7", SHORT), LOSSES, "flat"
    ),
)


def done(run: Planted, work: Path) -> dict[str, Any]:
    """Fit and evaluate; what was done before with the same words is not done again."""
    folder = work / run.name.replace(" ", "_")
    kept = folder.with_suffix(".json")
    row: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {"commands": ["", ""]}
    for name in (run.sets, GENERIC):
        save_set(name, work / name)
    for place, command in enumerate(run.commands):
        if row["commands"][place] == command:
            continue
        shutil.rmtree(folder if place == 0 else folder / "evaluation", ignore_errors=True)
        start, cpu = time.monotonic(), time.process_time()
        if code := main(command.replace("WORK", str(work)).split(" ")):
            raise SystemExit(code)
        spent = {"seconds": round(time.monotonic() - start), "cpu_seconds": round(time.process_time() - cpu)}
        row["commands"][place:] = [command, ""][: 2 - place]
        row |= {command.partition(" ")[0]: spent, "made_with": _made_with()}
        kept.write_text(json.dumps(row, indent=1) + "\n")
    return row | _said(json.loads((folder / "evaluation" / "evaluation.json").read_text()))


def _said(told: dict[str, Any]) -> dict[str, Any]:
    """What was said at each strength, and of which numbers."""
    losses = {
        group: {arm: one["ratio"] for arm, one in table["arms"].items() if "ratio" in one}
        for group, table in told["losses"].items()
    }
    return {
        "verdicts": told["verdicts"],
        "losses": losses,
        "metrics": {k: m["arms"] for k, m in told["metrics"].items()},
    }


def _made_with() -> dict[str, str]:
    versions = {name: version(name) for name in PACKAGES}
    return {
        **versions,
        "python": platform.python_version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpus": str(os.cpu_count()),
    }


def found(run: Planted, verdict: dict[str, Any]) -> bool:
    """Whether that was said; of a run whose videos have no fault, no finding."""
    findings = [line for line in verdict["findings"] if line.startswith(run.finding)]
    return run.kind in (None, verdict["kind"]) and bool(findings) == bool(run.finding)


def _last(*words: str) -> str:
    """Of each key the last."""
    return " ".join({word.partition("=")[0]: word for word in words}.values())


def kept_runs() -> dict[str, Any]:
    """The results that the page shows, by name."""
    return json.loads(KEPT.read_text())["runs"] if KEPT.is_file() else {}


def tables(rows: dict[str, Any]) -> dict[str, str]:
    """The page's tables, by the name of their place."""
    said = ["| run | planted | expected | said | found |", "|---|---|---|---|---|"]
    numbers = [
        "| run | held-out loss | training | generic | motion: clips, base, adapter | nearest training frame | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    words = [f"- FIT: `{_last(*FIT)}`", f"- LOSSES: `{_last(*LOSSES)}`", f"- VIDEOS: `{_last(*VIDEOS)}`"]
    words += ["", "| run | FIT and | evaluate |", "|---|---|---|"]
    for run in (run for run in RUNS if run.name in rows):
        row = rows[run.name]
        is_found = "yes" if found(run, row["verdicts"][ARM]) else "NO"
        said.append(f"| {run.name} | {run.what} | {run.expected} | {_lines(row['verdicts'])} | {is_found} |")
        ratios = [_ratio(row["losses"].get(group)) for group in ("held_out", "training", "generic")]
        measures = [_three(row["metrics"].get(name)) for name in ("motion", "nearest_training_frame")]
        cpu = row["fit"]["cpu_seconds"] + row["evaluate"]["cpu_seconds"]
        numbers.append(f"| {' | '.join([run.name, *ratios, *measures, str(cpu)])} |")
        words.append(f"| {run.name} | `{_last(*run.fit, f'data.source=WORK/{run.sets}')}` | {_own(run.evaluate)} |")
    made = dict.fromkeys(", ".join(f"{k} {v}" for k, v in row["made_with"].items()) for row in rows.values())
    numbers += ["", *(f"Made with {one}." for one in made)]
    return {"said": "\n".join(said), "numbers": "\n".join(numbers), "words": "\n".join(words)}


def _lines(verdicts: dict[str, Any]) -> str:
    """At strength 1, then at others."""
    lines: list[str] = []
    for arm in sorted(verdicts):
        at = "" if arm == ARM else f"at strength {arm.partition('@')[2]}: "
        lines += [f"{at}{line}" for line in (verdicts[arm]["sentence"], *verdicts[arm]["findings"])]
    return "<br>".join(lines)


def _own(words: tuple[str, ...]) -> str:
    name, shared = ("VIDEOS", VIDEOS) if "inputs=4" in words else ("LOSSES", LOSSES)
    own = [word for word in words if word not in shared]
    return f"{name} and `{' '.join(own)}`" if own else name


def _ratio(arms: dict[str, Any] | None) -> str:
    if not arms:
        return ""
    return "{value:.2f} ({low:.2f} to {high:.2f})".format(**arms[ARM])


def _three(arms: dict[str, Any] | None) -> str:
    return ", ".join(f"{arms[arm]['value']:.1f}" for arm in ("held-out clip", "base", ARM)) if arms else ""


def with_parts(page: str, rows: dict[str, Any]) -> str:
    """The page with what stands between its marks made anew."""
    for name, part in tables(rows).items():
        begin, end = f"<!-- {name}: scripts/planted_runs.py -->\n", f"<!-- end of {name} -->\n"
        page = with_part(page, begin, end, f"\n{part}\n\n")
    return page


def _write(rows: dict[str, Any]) -> None:
    ordered = {run.name: rows[run.name] for run in RUNS if run.name in rows}
    KEPT.write_text(json.dumps({"command": COMMAND, "runs": ordered}, indent=1) + "\n")
    PAGE.write_text(with_parts(PAGE.read_text(), ordered))


if __name__ == "__main__":
    rows, names = kept_runs(), [run.name for run in RUNS]
    if sys.argv[1:]:
        work = Path(sys.argv[1]).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for run in [RUNS[names.index(name)] for name in sys.argv[2:] or names]:
            rows[run.name] = done(run, work)
            verdict = rows[run.name]["verdicts"][ARM]
            print(f"{run.name}: {'found' if found(run, verdict) else 'NOT FOUND'}: {verdict}", flush=True)
            _write(rows)
    else:
        _write(rows)
