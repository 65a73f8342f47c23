"""`python -m svdtrain sweep`: fits one after the other, each in a process of its own, for the least held-out loss."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from svdtrain.commands.sweep_study import SweepStudy
from svdtrain.commands.sweep_trial import Fit, Outcome
from svdtrain.config.sweeping import SweepConfig
from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.foundation.files import write_atomic
from svdtrain.launching.notice import Notice
from svdtrain.reporting.run_lock import locked
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from svdtrain.commands.sweep_study import Tried

OWN = re.compile(r"[+~]*(trials|space|prune|out)\b")
"""Words of the sweep, which its fits do not know."""


def run(config: SweepConfig, overrides: list[str]) -> int:
    """The exit code: 0, or that of the signal which stopped it."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    folder = Path(config.out or f"runs/{config.name}/sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    words = [line for line in overrides if not OWN.match(line)]
    with ExitStack() as held:
        held.enter_context(locked(folder))
        notice = held.enter_context(Notice().heard())
        notice.trains = True
        study = SweepStudy(folder, config.space, words, config.seed, prune=config.prune)
        study.begin_with(_present(config))
        console.print(
            f"sweep folder {folder}; {len(study.tried())} of {config.trials} trials are there", highlight=False
        )
        for trial in study.asked(config.trials):
            shown = "  ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
            console.print(f"trial {trial.number}  {shown}", highlight=False, soft_wrap=True)
            fit = Fit([*_flags(sys.argv), *words], trial.params, folder / f"trial-{trial.number:03d}")
            outcome = fit.run(notice, trial.looked)
            if notice.received:
                console.print(
                    f"stopped; go on with: python -m svdtrain sweep {shlex.join([*overrides, f'out={folder}'])}"
                )
                return notice.exit_code
            study.tell(trial, outcome)
            if outcome.is_mistake and len(study.tried()) == 1:
                raise UsageError(f"trial {trial.number}: {outcome.error}", outcome.hint)
            console.print(f"         {_said(outcome)}", highlight=False, soft_wrap=True)
    return _finish(study.tried(), folder, console)


def _finish(tried: list[Tried], folder: Path, console: Console) -> int:
    """The table, sweep.json and the best. Raises SystemFault where nothing came of any trial."""
    keys = list(dict.fromkeys(key for one in tried for key in one.params))
    ranked = sorted(
        tried, key=lambda one: (one.state != "done", one.ratio if one.ratio is not None else 9e9, one.number)
    )
    rows = [
        [str(one.number), "" if one.ratio is None else f"{one.ratio:.4f}", one.state]
        + [_short(one.params.get(key, "")) for key in keys]
        for one in ranked
    ]
    best = ranked[0] if ranked and ranked[0].state == "done" else None
    told: dict[str, Any] = {"best": best.number if best else None, "trials": [one.as_record() for one in tried]}
    write_atomic(folder / "sweep.json", json.dumps(told, indent=2))
    console.print(
        text_table(["trial", "held-out ratio", "state", *keys], rows), highlight=False, end="", soft_wrap=True
    )
    if best is None:
        raise SystemFault(
            f"{folder}: none of {len(tried)} trials was finished", "the logs beside their folders say why"
        )
    console.print(
        f"best           trial {best.number}: held-out loss is {best.ratio:.3f} of the base's", highlight=False
    )
    console.print(f"adapter        {folder / f'trial-{best.number:03d}'}", highlight=False, soft_wrap=True)
    return 0


def _present(config: SweepConfig) -> dict[str, Any]:
    """The recipe's own values of what is tried: the first trial. Raises UsageError for a key that no fit has."""
    settings, found = config.model_dump(mode="json"), dict[str, Any]()
    for key in config.space:
        value: Any = settings
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise UsageError(f"space: no such setting '{key}'", "a key of fit, such as optimizer.learning_rate")
            value = value[part]
        found[key] = value
    return found


def _flags(argv: list[str]) -> list[str]:
    """--config-dir and --config-path, as they were typed: the fits need them, too."""
    found: list[str] = []
    for place, word in enumerate(argv):
        name, equals, _ = word.partition("=")
        if name in ("--config-dir", "-cd", "--config-path", "-cp"):
            found += [word] if equals else argv[place : place + 2]
    return found


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _said(outcome: Outcome) -> str:
    if outcome.state == "done":
        return f"held-out loss is {outcome.ratio:.4f} of the base's"
    return f"{outcome.state}: {outcome.error}" if outcome.error else outcome.state
