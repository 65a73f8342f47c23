"""What a run has left, read as far as it can be: run.json, config.yaml, its curves, an evaluation of it, a choice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from svdtrain.foundation.bounded_yaml import bounded
from svdtrain.foundation.errors import UsageError, shown
from svdtrain.foundation.json_lines import JsonLines
from svdtrain.foundation.secrets import redacted
from svdtrain.reporting.told import number

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.reporting.curves import Points

MOST_BYTES = 64_000_000
"""Of a file that is read."""
MOST_STEPS, LARGEST = 10**9, 1e30
"""Of what is drawn."""
METRICS = "metrics.jsonl"
KNOWN = ("run.json", "config.yaml", METRICS, "samples", "adapter", "denoiser")
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
    """Steps that a resumed run did again replace what was measured of them, and of all after them, before."""
    curves: dict[str, dict[int, float]] = {}
    file, last, bad = run.folder / METRICS, -1, 0
    try:
        if file.is_file() and file.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES // 10**6} MB")
        for row in JsonLines(file).rows():
            step = number(row, "step")
            if row is None or step is None or not (0 <= step < MOST_STEPS and step == int(step)):
                bad += 1
                continue
            if step < last:
                for points in curves.values():
                    for later in [one for one in points if one > step]:
                        del points[later]
            last = int(step)
            bad += _add(curves, row, last)
    except (OSError, ValueError) as error:
        run.damage.append(f"{METRICS} cannot be read: {shown(str(error), 90)}")
    if bad:
        run.damage.append(f"{METRICS}: {bad} of its lines or numbers are none")
    if not any(curves.values()):
        run.missing.append(f"There are no metrics: nothing was logged yet, or {METRICS} is gone.")
    return {name: sorted(points.items()) for name, points in curves.items() if points}


def _add(curves: dict[str, dict[int, float]], row: dict[str, Any], step: int) -> int:
    """How many values were no numbers; null is what was not finite."""
    bad = 0
    for name, value in row.items():
        if name in ("step", "time") or value is None:
            continue
        if (found := number(row, name)) is None:
            bad += 1
        elif abs(found) < LARGEST:
            curves.setdefault(name, {})[step] = found
    return bad
