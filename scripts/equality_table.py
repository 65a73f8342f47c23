"""Each lever against the plain network, measured: PYTHONPATH=. python -m scripts.equality_table writes docs/results/levers.md.

The denoisers are the tests' (tests/tiny_denoisers.py), with adapters far from zero; tests/acceleration/test_levers.py holds the
bounds. A figure is the largest difference, of the output and of every adapter weight's gradient, as a share of each one's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from svdtrain.acceleration import attention
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.foundation.quiet import quiet_packages
from tests.acceleration.test_levers import CASES, adapted, answer, distance
from tests.tiny_denoisers import DENOISERS

if TYPE_CHECKING:
    from collections.abc import Collection

PAGE = Path(__file__).parents[1] / "docs" / "results" / "levers.md"
NAMES = [name for name in DENOISERS if name != "motion_modules"]
DTYPES = (torch.float64, torch.float32)
INTRODUCTION = """# Levers change no result

What each switch under `speed.` puts on a denoiser, against the plain network: the largest difference, of the output and of
every adapter weight's gradient, as a share of each one's size, in float64 and in fp32. 0: equal to the bit. A dash: it finds
nothing to do there. `self_attention` goes by peft's layers where it is alone: the last row has it beside `fused_lora`.
`fused_pointwise` works on a GPU alone, and is left out; its formulas are tested by tests/acceleration/test_fused_pointwise.py.

Written by `python -m scripts.equality_table`; the bounds are held by tests/acceleration/test_levers.py.

"""
LEFT_OUT = "fused_pointwise"


def gap(levers: Collection[str], name: str, dtype: torch.dtype) -> str:
    """As it stands in the table."""
    denoiser = adapted(name, dtype)
    before = answer(denoiser, name)
    if len(accelerate(denoiser, levers).left_out) == len(levers):
        return "-"
    apart = distance(answer(denoiser, name), before)
    return f"{apart:.0e}" if apart else "0"


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    quiet_packages()
    attention.MOST_ROWS = 3  # fewer than any of these networks has
    levers = {f"`{case.lever}`": [case.lever] for case in CASES if case.lever != LEFT_OUT}
    levers["all of them"] = sorted(set(LEVERS) - {LEFT_OUT})
    rows = [["`speed.`", *NAMES], ["---"] * (1 + len(NAMES))]
    for title, names in levers.items():
        cells = [[gap(names, name, dtype) for dtype in DTYPES] for name in NAMES]
        rows.append([title, *("-" if pair[0] == "-" else " / ".join(pair) for pair in cells)])
    PAGE.write_text(INTRODUCTION + "".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    main()
