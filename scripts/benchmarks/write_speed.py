"""docs/results/speed.md and its drawings, from scripts/benchmarks/results: python -m scripts.benchmarks.write_speed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[2] / "docs" / "results"
COLOURS = {"strong": "#888888", "ours": "#4c78a8", "ours_blocks": "#e4823a"}
WIDTH, HEIGHT, LEFT, FLOOR, TOP = 300, 220, 52, 180, 34
AXES = {"frames": "frames", "pixels": "pixels of a frame", "clips": "clips a step"}
HEAD = """# What a step costs

The variants are described in [variants.py](../../scripts/benchmarks/variants.py). `plain`: VAE and CLIP in the loop, autocast,
peft's LoRA in fp32, torch's AdamW, the loss read at each step. `strong`: latents and embeddings made ahead, nothing read.
`_checkpointing`: diffusers' own switch. `ours`: svdtrain's step, with latents made ahead, at each rung of its memory ladder.
All have the same weights (random, not zero), adapter values, clips and draws; draws are made before the clock starts. Variants
take turns step by step in one process. Memory is what the step's operations make at their peak, beside what stays.

"""


@dataclass(frozen=True)
class Line:
    """A straight line by least squares, and the share of the variation that it explains."""

    start: float
    slope: float
    explained: float


def fitted(x: list[float], y: list[float]) -> Line:
    """y = start + slope x."""
    slope, start = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (start + slope * np.asarray(x))
    return Line(float(start), float(slope), 1 - float(rest.var() / np.var(y)))


def amount(what: str, case: dict[str, Any]) -> float:
    """How much of it a case has: pixels are of a whole frame."""
    return case["side"] ** 2 if what == "pixels" else case[what]


def series(cases: list[dict[str, Any]], what: str, variant: str, measure: str) -> tuple[list[float], list[float]]:
    """Amounts, and milliseconds or MiB."""
    scale = 1.0 if measure == "median_ms" else 2**-20
    return [amount(what, c) for c in cases], [c["rows"][variant][measure] * scale for c in cases]


def drawing(sizes: dict[str, list[dict[str, Any]]]) -> str:
    """Time above, memory below, against each size; points as measured, lines as fitted."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {2 * HEIGHT + 24}" font-family="sans-serif" '
        'font-size="11" role="img">',
        f'<rect width="{3 * WIDTH}" height="{2 * HEIGHT + 24}" fill="#ffffff"/>',
    ]
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + 110 * place}" y="6" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 16 + 110 * place}" y="16">{name}</text>')
    for row, (measure, unit) in enumerate((("median_ms", "ms a step"), ("made", "MiB made"))):
        for column, (what, cases) in enumerate(sizes.items()):
            parts.append(f'<g transform="translate({WIDTH * column} {HEIGHT * row + 20})">')
            parts += _panel(cases, what, measure, unit)
            parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(cases: list[dict[str, Any]], what: str, measure: str, unit: str) -> list[str]:
    lines = {name: series(cases, what, name, measure) for name in COLOURS}
    most_x = max(max(x) for x, _ in lines.values())
    most_y = max(max(y) for _, y in lines.values()) * 1.05

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - 20) * x / most_x, FLOOR - (FLOOR - TOP) * y / most_y

    parts = [
        f'<path d="M{LEFT} {TOP}V{FLOOR}H{WIDTH - 16}" fill="none" stroke="#333333"/>',
        f'<text x="{LEFT}" y="{TOP - 8}">{unit}</text>',
        f'<text x="{WIDTH - 20}" y="{FLOOR + 32}" text-anchor="end">{AXES[what]}</text>',
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{most_y:.0f}</text>',
        f'<text x="{LEFT - 4}" y="{FLOOR}" text-anchor="end">0</text>',
    ]
    for x in lines["ours"][0]:
        parts.append(f'<text x="{at(x, 0)[0]:.1f}" y="{FLOOR + 15}" text-anchor="middle">{x:.0f}</text>')
    for name, (xs, ys) in lines.items():
        line = fitted(xs, ys)
        (x1, y1), (x2, y2) = (
            at(min(xs), line.start + line.slope * min(xs)),
            at(most_x, line.start + line.slope * most_x),
        )
        parts.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{COLOURS[name]}"/>')
        for x, y in zip(xs, ys, strict=True):
            parts.append('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"/>'.format(*at(x, y), COLOURS[name]))
    return parts


def ratios(case: dict[str, Any]) -> dict[str, float]:
    """How many times as long each variant's step takes as ours."""
    rows = case["rows"]
    return {name: row["median_ms"] / rows["ours"]["median_ms"] for name, row in rows.items()}


def tables(results: dict[str, Any]) -> str:
    """Each case, then the fitted lines."""
    text = f"Measured by `{results['command']}` on {results['date']}: {results['machine']}, fp32, "
    text += f"torch {results['versions']['torch']}, diffusers {results['versions']['diffusers']}, load "
    text += f"{results['load_average']}, medians of {results['rounds']} steps after {results['warm_up']}.\n"
    for case in results["cases"]:
        text += "\n## {model}: {frames} frames of {side} x {side}\n\n".format(**case)
        text += "| variant | ms a step | times ours | made, MiB | losses within |\n|---|---|---|---|---|\n"
        for name, row in case["rows"].items():
            times = ratios(case)[name]
            text += (
                f"| {name} | {row['median_ms']:.1f} | {times:.2f} | {row['made'] / 2**20:.1f} | {row['gap']:.0e} |\n"
            )
    if not results["sizes"]:
        return text
    text += "\n## Against size\n\nThe nano model; points as measured, straight lines by least squares.\n\n"
    text += "![milliseconds and MiB against frames, pixels and clips](speed.svg)\n\n"
    text += "| grows | variant | ms a step | explains | MiB made | explains |\n|---|---|---|---|---|---|\n"
    for what, cases in results["sizes"].items():
        for name in COLOURS:
            time, memory = (fitted(*series(cases, what, name, measure)) for measure in ("median_ms", "made"))
            text += f"| {what} | {name} | {time.start:.1f} + {time.slope:.3g} n | {time.explained:.1%} | "
            text += f"{memory.start:.1f} + {memory.slope:.3g} n | {memory.explained:.1%} |\n"
    return text


def main() -> None:
    """Write both."""
    results = json.loads((RESULTS / "training_step.json").read_text())
    (DOCS / "speed.svg").write_text(drawing(results["sizes"]))
    (DOCS / "speed.md").write_text(HEAD + tables(results))


if __name__ == "__main__":
    main()
