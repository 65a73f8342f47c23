"""README's table of cards, predicted: `PYTHONPATH=. python scripts/card_table.py` makes docs/results/cards.json and writes it.

With --keep, from the file that is there. Measured rows are of scripts/benchmarks/results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripts.marked import with_part
from svdtrain.foundation.files import packaged

ROOT = Path(__file__).parents[1]
README, KEPT = ROOT / "README.md", ROOT / "docs" / "results" / "cards.json"
MEASURED = ROOT / "scripts" / "benchmarks" / "results" / "2026-11-28-h200.json"
BEGIN, END = "<!-- cards: scripts/card_table.py -->\n", "<!-- end of cards -->\n"
SIZES = ((14, 320, 512), (25, 320, 512), (14, 576, 1024), (25, 576, 1024))
CARDS = ("rtx3060", "rtx4080", "rtx3090", "rtx4090", "rtx5090", "l40s", "a100", "h100", "h200")
WORDS = "config=style_lora model=svd_xt adapter.modules=attention data.cache=disk"
RUNGS = {"ours": "none"} | {f"ours_{rung}": rung for rung in ("feed_forward", "blocks", "nested", "offload")}


def name_of(size: tuple[int, int, int]) -> str:
    """`25 x 576 x 1024`."""
    return " x ".join(map(str, size))


def foretold() -> dict[str, Any]:
    """A plan for each size."""
    from svdtrain.config.compose import check
    from svdtrain.config.overrides import parse
    from svdtrain.config.schema import FitConfig
    from svdtrain.planning.plan import plan
    from svdtrain.training.build import build_module

    found: dict[str, Any] = {}
    for size in SIZES:
        words = [f"model.{key}={value}" for key, value in zip(("frames", "height", "width"), size, strict=True)]
        words += [f"model.source={packaged('assets')}/blueprints/svd_xt", "trainer.precision=bf16-mixed"]
        (config,) = check(parse([*WORDS.split(), *words], "fit", "", FitConfig), FitConfig)
        found[name_of(size)] = plan(config, build_module, CARDS).as_json()
    return found


def table(kept: dict[str, Any]) -> str:
    """Memory and seconds a step on the fastest rung that fits."""
    measured = {case["name"]: case["rows"] for case in json.loads(MEASURED.read_text())["cases"]}
    rows = [["card", "", *map(name_of, SIZES)], ["---"] * (2 + len(SIZES))]
    for card in CARDS:
        cells = [_predicted(kept[name_of(size)], card) for size in SIZES]
        rows.append([f"`{card}`", "predicted", *cells])
    seen = [measured.get(f"{'x'.join(map(str, size))} batch 1", {}) for size in SIZES]
    rows.append(["`h200`", "measured 2026-11-28", *[_measured(rows_of) for rows_of in seen]])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _predicted(plan: dict[str, Any], card: str) -> str:
    found = next(one for one in plan["cards"] if one["card"] == card)
    if found["rung"] is None:
        return "does not fit"
    peak = plan["rungs"][found["rung"]]["peak_bytes"] / 2**30
    return f"{found['rung']}: {peak:.1f} GiB, {found['step_seconds']:.2f} s"


def _measured(rows: dict[str, Any]) -> str:
    row = rows.get("ours")
    return f"none: {row['peak'] / 2**30:.1f} GiB, {row['median_ms'] / 1e3:.2f} s" if row else "not yet"


def with_table(text: str) -> str:
    """The text with its table made anew."""
    return with_part(text, BEGIN, END, table(json.loads(KEPT.read_text())))


if __name__ == "__main__":
    if "--keep" not in sys.argv:
        KEPT.write_text(json.dumps(foretold(), indent=1) + "\n")
    README.write_text(with_table(README.read_text()))
