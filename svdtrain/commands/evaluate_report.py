"""What an evaluation leaves and says: evaluation.json, a contact sheet, a video side by side, a table."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from svdtrain.data.decoding import decode_frames, probe
from svdtrain.evaluation.results import unwritable
from svdtrain.evaluation.work import BASE, CLIP, video_name
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.secrets import redacted
from svdtrain.generation.comparison import Comparison
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from rich.console import Console

    from svdtrain.evaluation.summary import Found
    from svdtrain.evaluation.work import Plan

SHOWN = 4
"""Inputs, and adapters, on the contact sheet."""
JSON, SHEET, VIDEO = "evaluation.json", "contact_sheet.png", "side_by_side.mp4"


def write(out: Path, plan: Plan, told: dict[str, Any], found: Found) -> None:
    """All files. Raises SystemFault where they cannot be written."""
    whole = [names[0] for names in found.whole_inputs().values()][:SHOWN]
    inputs = [one for one in plan.inputs if one.name in whole]
    arms = plan.video_arms[: SHOWN + 1]
    try:
        write_atomic(out / JSON, json.dumps(redacted(finite(told)), indent=1))
        if not inputs:
            return
        rate = probe((out / f"{video_name(None, inputs[0])}.mp4").read_bytes(), CLIP).fps
        truths = [_frames(out / f"{video_name(None, one)}.mp4") for one in inputs]
        videos = {arm.label: [_frames(out / f"{video_name(arm, one)}.mp4") for one in inputs] for arm in arms}
        comparison = Comparison(truths, videos, rate)
        comparison.write_sheet(out / SHEET)
        comparison.write_video(out / VIDEO)
    except OSError as error:
        raise unwritable(out, error) from error


def tell(console: Console, out: Path, told: dict[str, Any]) -> None:
    """Losses, metrics, verdicts, and where it all is."""
    if rows := _loss_rows(told):
        header = ["loss / base's", "all", *(f"sigma {sigma:g}" for sigma in told["sigmas"]), "clips"]
        console.print(text_table(header, rows))
    if told["metrics"]:
        arms = list(told["verdicts"])
        console.print(text_table(["metric", CLIP, BASE, *arms, "unit", "n"], _metric_rows(told, arms)))
    for name, reason in told["absent"].items():
        console.print(f"absent         {name}: {reason}")
    for arm, said in told["verdicts"].items():
        for line in (said["sentence"], *said["findings"]):
            console.print(f"{arm:<14} {line}")
    shown = [SHEET, VIDEO] if told["samples"] and (out / SHEET).is_file() else []
    for name in (JSON, *shown):
        console.print(str(out / name))


def _loss_rows(told: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{arm}, {group.replace('_', '-')}", with_ends(one["ratio"])]
        + [f"{at['value']:.3f}" for at in one["ratio_by_sigma"]]
        + [str(one["ratio"]["n"])]
        for group, table in told["losses"].items()
        for arm, one in table["arms"].items()
        if "ratio" in one
    ]


def _metric_rows(told: dict[str, Any], arms: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for name, one in told["metrics"].items():
        row = [name]
        for arm in (CLIP, BASE, *arms):
            estimate, against = one["arms"].get(arm), one["against_base"].get(arm)
            cell = f"{estimate['value']:.3g}" if estimate else ""
            row.append(f"{cell} {against['says']}" if against else cell)
        rows.append([*row, one["unit"], str(one["arms"][BASE]["n"])])
    return rows


def with_ends(estimate: dict[str, Any] | None) -> str:
    """0.912 (0.884 to 0.941); empty for none."""
    if estimate is None or not math.isfinite(estimate["value"]):
        return ""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _frames(path: Path) -> np.ndarray:
    data = path.read_bytes()
    info = probe(data, path.name)
    return decode_frames(data, list(range(info.frames)), path.name, info)


def finite(value: Any) -> Any:  # noqa: ANN401
    """JSON has no nan."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
