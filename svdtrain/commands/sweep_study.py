"""Which settings a sweep tries next, by Optuna: a journal in the sweep's folder, so that it goes on where it was."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from svdtrain.commands.sweep_trial import Outcome
from svdtrain.config.sweeping import Range
from svdtrain.foundation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from svdtrain.config.sweeping import Space

RANDOM_FIRST = 5
"""Trials before what was measured has a say, and before any is pruned."""


@dataclass(frozen=True)
class Tried:
    """A trial that is over."""

    number: int
    state: str
    ratio: float | None
    params: dict[str, Any]
    error: str = ""

    def as_record(self) -> dict[str, Any]:
        """As sweep.json has it."""
        return asdict(self) | {"folder": f"trial-{self.number:03d}"}


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run."""

    number: int
    params: dict[str, Any]
    trial: Trial | None
    """None: of a sweep that was cut off."""
    prune: bool

    def looked(self, step: int, ratio: float) -> bool:
        """Whether it is still worth its time."""
        if self.trial is None:
            return True
        self.trial.report(ratio, step)
        return not (self.prune and self.trial.should_prune())


class SweepStudy:
    """Optuna's study: tree-structured Parzen estimators, pruned by the median."""

    def __init__(self, folder: Path, space: Space, words: Sequence[str], seed: int, *, prune: bool) -> None:
        """Raises UsageError where Optuna is missing, or the folder holds a sweep of other settings."""
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ModuleNotFoundError as error:
            raise UsageError("sweep: the package optuna is not installed", "pip install 'svdtrain[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.space, self.seed, self.prune = optuna, space, seed, prune
        storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=RANDOM_FIRST)
        self.study: Study = optuna.create_study(
            storage=storage, pruner=pruner, study_name="sweep", direction="minimize", load_if_exists=True
        )
        settings = {
            "words": sorted(words),
            "space": {key: one.model_dump() if isinstance(one, Range) else one for key, one in space.items()},
        }
        if self.study.user_attrs.setdefault("settings", settings) != settings:
            raise UsageError(f"out={folder}: it holds a sweep of other words or of another space", "out=ANOTHER")
        self.study.set_user_attr("settings", settings)

    def begin_with(self, params: Mapping[str, Any]) -> None:
        """The first trial, where these lie within the space."""
        inside = all(
            one.low <= params[key] <= one.high if isinstance(one, Range) else params[key] in one
            for key, one in self.space.items()
        )
        if inside and not self.study.trials:
            self.study.enqueue_trial(dict(params))

    def asked(self, trials: int) -> Iterator[Asked]:
        """Those that a sweep which was cut off had begun, then new ones."""
        state = self.optuna.trial.TrialState
        for begun in self.study.get_trials(states=(state.RUNNING,)):
            yield Asked(begun.number, begun.params, None, self.prune)
        while len(self.tried()) < trials:
            # Each trial's draws are its own: a sweep that went on tries what an uninterrupted one would have.
            number = len(self.study.trials)
            draws = random.Random(f"sweep {self.seed} {number}").getrandbits(32)
            self.study.sampler = self.optuna.samplers.TPESampler(n_startup_trials=RANDOM_FIRST, seed=draws)
            trial = self.study.ask()
            yield Asked(
                trial.number, {key: _suggested(trial, key, one) for key, one in self.space.items()}, trial, self.prune
            )

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        """What came of it."""
        state = self.optuna.trial.TrialState
        if outcome.error and asked.trial:
            asked.trial.set_user_attr("error", outcome.error)
        kinds = {"done": state.COMPLETE, "pruned": state.PRUNED}
        value = outcome.ratio if outcome.state == "done" else None
        self.study.tell(asked.number, value, kinds.get(outcome.state, state.FAIL))

    def tried(self) -> list[Tried]:
        """All that are over."""
        return [self._tried(one) for one in self.study.trials if one.state.is_finished()]

    @staticmethod
    def _tried(one: FrozenTrial) -> Tried:
        state = {"COMPLETE": "done", "PRUNED": "pruned"}.get(one.state.name, "failed")
        last = one.intermediate_values[max(one.intermediate_values)] if one.intermediate_values else None
        ratio = one.value if state == "done" else last
        return Tried(one.number, state, ratio, dict(one.params), one.user_attrs.get("error", ""))


def _suggested(trial: Trial, key: str, one: Sequence[Any] | Range) -> Any:  # noqa: ANN401
    if not isinstance(one, Range):
        return trial.suggest_categorical(key, list(one))
    if one.whole:
        return trial.suggest_int(key, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(key, one.low, one.high, log=one.log)
