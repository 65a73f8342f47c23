"""What the committed measurements of a training step say, as ratios; and that the measuring still runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.gpu_cases import TINY
from scripts.benchmarks.training_step import RESULTS, SAME
from scripts.benchmarks.write_gpu import PAGE, page
from scripts.benchmarks.write_speed import DOCS, HEAD, drawing, fitted, ratios, tables

ROOT = Path(__file__).parents[2]
FULL_SIZE = ("14x576x1024", "25x576x1024")


def results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text())


@pytest.mark.parametrize(
    ("model", "side", "baseline", "times"),
    [
        ("nano", 64, "strong_checkpointing", 1.3),
        ("nano", 64, "plain_checkpointing", 1.5),
        ("nano", 128, "strong_checkpointing", 1.3),
        ("nano", 128, "plain_checkpointing", 1.5),
        ("four_levels", 128, "strong_checkpointing", 1.3),
        ("four_levels", 128, "plain_checkpointing", 1.5),
    ],
)
def test_a_step_takes_less_than_the_baselines(model: str, side: int, baseline: str, times: float) -> None:
    (case,) = (case for case in results()["cases"] if (case["model"], case["side"]) == (model, side))
    assert ratios(case)[baseline] >= times


def test_variants_had_the_same_losses_and_ours_made_less() -> None:
    for case in results()["cases"]:
        rows = case["rows"]
        assert all(row["gap"] <= SAME and len(row["losses"]) >= 14 for row in rows.values())
        assert rows["ours_blocks"]["made"] < rows["strong_checkpointing"]["made"]
        assert rows["ours"]["made"] < rows["strong"]["made"]


def test_the_page_is_what_the_results_say() -> None:
    measured = results()
    assert (DOCS / "speed.md").read_text() == HEAD + tables(measured)
    assert (DOCS / "speed.svg").read_text() == drawing(measured["sizes"])


def on_gpus() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in RESULTS.parent.glob("20*.json")]


def test_on_a_gpu_a_step_at_full_size_takes_half_the_time_in_less_memory() -> None:
    """Of what diffusers' own checkpointing takes in the usual loop; the smallest rung at 25 frames needs 16 GiB at most."""
    cases = [case for results in on_gpus() for case in results["cases"] if case["case"].split(" ")[0] in FULL_SIZE]
    assert cases
    for rows in (case["rows"] for case in cases if "plain_checkpointing" in case.get("rows", {})):
        assert rows["plain_checkpointing"]["median_ms"] >= 2 * rows["ours"]["median_ms"]
        assert rows["ours"]["peak"] < rows["plain_checkpointing"]["peak"]
        assert rows["ours_nested"]["peak"] <= 16 * 2**30


def test_on_a_gpu_the_peak_is_what_was_foretold() -> None:
    for results in on_gpus():
        rows = {(case["case"], name): row for case in results["cases"] for name, row in case.get("rows", {}).items()}
        for foretold in results.get("predictions", ()):
            row = rows.get((foretold["case"], foretold["variant"]), {})
            if "peak" in row:
                assert foretold["peak"] == pytest.approx(row["peak"] - row["beside"], rel=0.05)


def test_the_page_of_gpus_is_what_the_results_say() -> None:
    assert PAGE.read_text() == page()


def test_a_line_is_fitted_by_least_squares() -> None:
    line = fitted([1, 2, 3], [3.0, 5.0, 7.0])
    assert (line.start, line.slope, line.explained) == pytest.approx((1, 2, 1))


@pytest.mark.slow
def test_what_runs_on_a_gpu_runs_tiny_on_a_cpu(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "benchmarks" / "gpu.sh"
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(
        [script, tmp_path, "--tiny"], env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "results.json").read_text())
    assert [case["case"] for case in written["cases"]] == [case.name for case in TINY]
    for case in written["cases"]:
        assert all("failed" not in row and row["peak"] for row in case["rows"].values())
        assert all(row.get("gap", 0.0) <= SAME for row in case["rows"].values())
    foretold = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert {row["variant"] for row in foretold} > {"strong", "ours", "ours_blocks"}
