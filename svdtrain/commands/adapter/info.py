"""`python -m svdtrain adapter info`: what is in a file, and what it changes where."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.measures import by_block
from svdtrain.adapters.spec import measured
from svdtrain.adapters.targets import half_of
from svdtrain.commands.adapter.opening import open_base, opened, say
from svdtrain.foundation.errors import ModelError, UsageError
from svdtrain.foundation.files import write_atomic
from svdtrain.reporting.adapter_chart import adapter_chart
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from svdtrain.adapters.files import AdapterFile
    from svdtrain.config.toolbox import InfoConfig

_SHOWN = ("model", "base", "recipe", "targets", "resolution", "fps", "motion_bucket", "steps", "made_by")


def run(config: InfoConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """A table a block; with svg=FILE.svg also drawn."""
    base = open_base(config.base)
    file = opened(config.file, base)
    if config.svg and Path(config.svg).suffix != ".svg":
        raise UsageError(f"svg={config.svg}: the drawing is an SVG", f"svg={Path(config.svg).stem}.svg")
    if config.svg and Path(config.svg).exists():
        raise ModelError(f"svg={config.svg}: exists already", "choose another name; nothing is overwritten")
    rows = by_block(file.layers, base.weight if base else None)
    say(_summary(file))
    header = ["block", "half", "modules", "change", "effective rank", "dead"] + (["of the weights"] if base else [])
    cells = [
        [row.block, row.half, str(row.modules), f"{row.norm:.4g}", f"{row.effective_rank:.1f}", str(row.dead)]
        + ([f"{row.relative or 0:.3%}"] if base else [])
        for row in rows
    ]
    say("\n" + text_table(header, cells) + "change: Frobenius norm of what is added to the weights")
    if dead := sum(row.dead for row in rows):
        say(f"{dead} of {len(file.layers)} modules change nothing")
    if config.svg:
        write_atomic(Path(config.svg), adapter_chart(file.path.name, rows))
        say(config.svg)


def _summary(file: AdapterFile) -> str:
    layers = file.layers.values()
    ranks = Counter(layer.rank for layer in layers if layer.rank)
    scales = sorted({layer.scale for layer in layers})
    halves = Counter(half_of(module) for module in file.layers)
    lines = {
        "file": f"{file.path}  ({file.path.stat().st_size / 1e6:.1f} MB, {file.format}, {file.dtype})",
        "kind": "/".join(sorted({layer.kind for layer in layers})),
        "modules": f"{len(file.layers)} ({', '.join(f'{n} {half}' for half, n in sorted(halves.items()))})",
        "rank": ", ".join(
            f"{rank} ({count})" if len(ranks) > 1 else f"{rank}" for rank, count in sorted(ranks.items())
        ),
        "scale": ", ".join(f"{scale:g}" for scale in scales[:4]) + (" …" if len(scales) > 4 else ""),
        "numbers": f"{sum(layer.size for layer in layers):,}",
    }
    told = {name: value for name, value in asdict(file.info).items() if name in _SHOWN and value}
    if results := measured(file.info):
        levels = ", ".join(f"{ratio:.2f} at {level}" for level, ratio in results["by_noise_level"].items())
        told["results"] = f"held-out loss {results['held_out_loss_ratio']:.2f} of the base's ({levels})"
    return "\n".join(f"{name:<14} {value}" for name, value in (lines | told).items() if value)
