"""What a run has left, read as far as it can be: run.json, config.yaml, its curves, an evaluation of it, a choice."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from svdtrain.foundation.bounded_yaml import bounded
from svdtrain.foundation.errors import UsageError, shown
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.reporting.curves import Points

MOST_BYTES = 64_000_000
"""Of a file that is read."""
MOST_STEPS, LARGEST = 10**9, 1e30
"""Of what is drawn."""
KNOWN = ("run.json", "config.yaml", "metrics", "samples", "adapter", "denoiser")
EVALUATION, CHOICE = "evaluation.json", "choice.json"


@dataclass
class RunFiles:
    """Nothing in it is to be trusted: svdtrain.reporting.told reads it."""

    folder: Path
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Points] = field(default_factory=dict)
    """By the name of a metric: (step, value), steps rising."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    evaluated_in: Path | None = None
    choice: dict[str, Any] = field(default_factory=dict)
    """Of a step and a strength."""
    damage: list[str] = field(default_factory=list)
    """What cannot be read, and why."""
    missing: list[str] = field(default_factory=list)


def read_run(folder: Path, evaluation: Path | None = None) -> RunFiles:
    """Raises UsageError for what holds nothing of a run. evaluation: instead of the run's own."""
    if not any((folder / name).exists() for name in KNOWN):
        raise UsageError(f"run={folder}: it is no run folder", "give a folder under runs/")
    run = RunFiles(folder)
    run.fields = _read(run, folder / "run.json", json.loads)
    run.config = _read(run, folder / "config.yaml", lambda text: yaml.load(text, Loader=bounded(yaml.SafeLoader)))
    run.curves = _curves(run)
    own = max(folder.glob(f"*/{EVALUATION}"), key=lambda one: one.stat().st_mtime, default=folder / EVALUATION)
    file = evaluation / EVALUATION if evaluation and evaluation.is_dir() else evaluation or own
    if evaluation or file.exists():
        run.evaluation, run.evaluated_in = _read(run, file, json.loads), file.parent
    if (folder / CHOICE).exists():
        run.choice = _read(run, folder / CHOICE, json.loads)
    return run


def _read(run: RunFiles, file: Path, parse: Any) -> dict[str, Any]:  # noqa: ANN401
    """{} where it is no table; then it is among the damage."""
    try:
        if not file.resolve().is_relative_to(file.parent.resolve()):
            raise ValueError("it is a link that leads elsewhere")
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES // 10**6} MB")
        found = parse(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no table")
        return redacted(found)
    except FileNotFoundError:
        run.damage.append(f"{file.name} is missing")
    except OSError as error:
        run.damage.append(f"{file.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        run.damage.append(f"{file.name} cannot be read: {shown(str(error), 90)}")
    return {}


def _curves(run: RunFiles) -> dict[str, Points]:
    """Of all parts of a run that went on; what a later part did again replaces what an earlier one did."""
    curves: dict[str, Points] = {}
    for file in sorted(run.folder.glob("metrics/from-*/metrics.csv")):
        begun = int(digits[1]) if (digits := re.fullmatch(r"from-(\d{1,9})", file.parent.name)) else 0
        for points in curves.values():
            points[:] = [point for point in points if point[0] <= begun]
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES // 10**6} MB")
            with file.open(newline="", encoding="utf-8", errors="replace") as lines:
                bad = _add(curves, csv.DictReader(lines))
            if bad:
                run.damage.append(f"{file.parent.name}/metrics.csv: {bad} of its numbers are none")
        except (OSError, ValueError, csv.Error) as error:
            run.damage.append(f"{file.parent.name}/metrics.csv cannot be read: {shown(str(error), 90)}")
    if not any(curves.values()):
        run.missing.append("There are no metrics: nothing was logged yet, or the folder metrics is gone.")
    return {name: sorted(points) for name, points in curves.items() if points}


def _add(curves: dict[str, Points], rows: csv.DictReader[str]) -> int:
    """How many cells were neither empty nor numbers."""
    bad = 0
    for row in rows:
        try:
            step = int(float(row.get("step") or ""))
        except (ValueError, OverflowError):
            step = -1
        if not 0 <= step < MOST_STEPS:
            bad += 1
            continue
        for name, cell in row.items():
            if not cell or name in ("step", "epoch", None):
                continue
            try:
                value = float(cell)
            except (ValueError, TypeError):
                bad += 1
                continue
            if abs(value) < LARGEST:
                curves.setdefault(name, []).append((step, value))
    return bad
