"""`python -m svdtrain adapter average`: the moving average of the adapters that a run kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import average, refuse_other_bases
from svdtrain.commands.adapter.opening import format_for, open_base, opened, target, write
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import AverageConfig


def run(config: AverageConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Oldest first; each weighs `decay` times as much as the one after it."""
    base = open_base(config.base)
    files = [opened(path, base) for path in _saved(config.files)]
    refuse_other_bases(files)
    target(config.out, format_for(config, files[-1]))
    did = f"average of {len(files)}, decay {config.decay:g}"
    write(config, average(files, config.decay), files[-1], did, computed=True)


def _saved(places: list[str]) -> list[str]:
    """The files, or those of the one run that is named."""
    if len(places) > 1:
        return places
    saved = sorted((Path(places[0]) / "adapters").glob("step-*"))
    if len(saved) < 2:
        raise ModelError(
            f"{places[0]}: {len(saved)} adapters in {Path(places[0]) / 'adapters'}, and an average wants two",
            "fit with trainer.keep_adapters=true, or name the files",
        )
    return [str(path) for path in saved]
