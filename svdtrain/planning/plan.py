"""What a fit will need, before anything of it is there: memory on each rung, time and cost on each card."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from svdtrain.acceleration.recompute import RUNGS
from svdtrain.planning.cards import CARDS, seconds
from svdtrain.planning.disk import bytes_of_fit
from svdtrain.planning.duration import encodes_anew, step_seconds
from svdtrain.planning.experience import NONE, Experience
from svdtrain.planning.ladder import bytes_of
from svdtrain.planning.memory import MemoryPrediction
from svdtrain.planning.training_step import ENCODING, blank_family, plain, predict_rungs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from svdtrain.config.schema import FitConfig
    from svdtrain.families.protocol import ModelFamily
    from svdtrain.planning.cards import Card
    from svdtrain.planning.costs import Costs
    from svdtrain.planning.training_step import Adapt, Sizes

FORWARD = 1 / 3
"""Of a step with all kept: what a validation, or a step of sampling, takes."""


@dataclass(frozen=True)
class Step:
    """A training step: one batch, forward and backward."""

    memory: Mapping[str, MemoryPrediction]
    """By rung."""
    costs: Mapping[str, Costs]
    """By rung, and ENCODING."""


@dataclass(frozen=True)
class OnCard:
    """A fit on one card."""

    card: str
    rung: str | None
    """The fastest that fits (or the settings' own, if it fits); None where none does."""
    step_seconds: float | None = None
    """None, as what follows, where none does."""
    hours: float | None = None
    """Of all steps, encoding each clip once, validations and samples."""
    cost: float | None = None
    known: Experience = NONE
    """Of runs on this card: in all times."""


@dataclass(frozen=True)
class Plan:
    """A fit, foretold."""

    parameters: int
    """Of the denoiser."""
    frozen_around: int
    """Of the encoders and what else is around it."""
    trained: int
    run_folder_bytes: int
    """At most, at a time."""
    window_bytes: int
    """Of one clip's window in a latent cache."""
    step: Step
    cards: Sequence[OnCard]

    def as_json(self) -> dict[str, Any]:
        """Bytes, seconds, hours; numbers alone."""
        rungs = {
            name: {"peak_bytes": peak.peak, **asdict(peak), "flops": costs.flops, "operations": costs.calls}
            for name, peak in self.step.memory.items()
            for costs in (self.step.costs[name],)
        }
        told = {
            name: getattr(self, name)
            for name in ("parameters", "frozen_around", "trained", "run_folder_bytes", "window_bytes")
        }
        return {**told, "rungs": rungs, "cards": [asdict(card) for card in self.cards]}


def plan(
    config: FitConfig,
    adapt: Adapt,
    cards: Sequence[str],
    *,
    sizes: Sizes = (),
    clips: int | None = None,
    price: float | None = None,
    known: Mapping[str, Experience] | None = None,
) -> Plan:
    """A fit with these settings on each of these cards, foretold. Its precision is settled; ModelError as predict_fit.

    clips: of the dataset, where it is known; each is encoded once. price: an hour of one GPU, in any currency.
    known: by card, how long steps took there beside what the table says.
    """
    family = blank_family(plain(config), adapt)
    trained = [p.numel() for p in family.denoiser.parameters() if p.requires_grad]
    base = sum(p.numel() for p in family.denoiser.parameters())
    disk = bytes_of_fit(config, family)
    memory, costs = _all_rungs(partial(_rungs, config, adapt, family, sizes))
    step = Step(memory, costs)
    return Plan(
        base if config.adapter.kind == "full" else base - sum(trained),
        sum(p.numel() for part in family.frozen().values() for p in part.parameters()),
        sum(trained),
        disk,
        _window_bytes(config, costs[ENCODING].kept),
        step,
        [_on_card(config, step, name, clips, price, (known or {}).get(name, NONE)) for name in cards],
    )


Rungs = tuple[dict[str, MemoryPrediction], dict[str, "Costs"]]


def _all_rungs(foretell: Callable[[Sequence[str]], Rungs]) -> Rungs:
    """In as many processes as there are cores; each begins with what is imported and built here."""
    workers = min(len(RUNGS), os.cpu_count() or 1)
    if workers == 1 or sys.platform != "linux":
        return foretell(RUNGS)
    each = -(-len(RUNGS) // workers)
    with ProcessPoolExecutor(workers, get_context("fork"), _inherited.append, (foretell,)) as pool:
        parts = list(pool.map(_foretold, [RUNGS[first : first + each] for first in range(0, len(RUNGS), each)]))
    memory = {rung: predicted for part, _ in parts for rung, predicted in part.items()}
    return {rung: memory[rung] for rung in RUNGS}, {name: costs for _, part in parts for name, costs in part.items()}


_inherited: list[Callable[[Sequence[str]], Rungs]] = []
"""Of a forked process: what it was given without a copy through a pipe."""


def _foretold(rungs: Sequence[str]) -> Rungs:
    return _inherited[-1](rungs)


def _rungs(config: FitConfig, adapt: Adapt, family: ModelFamily, sizes: Sizes, rungs: Sequence[str]) -> Rungs:
    costs: dict[str, Costs] = {}
    ahead = config.data.cache == "disk"
    each = predict_rungs(
        config, adapt, rungs, sizes=sizes, encoded_ahead=ahead, on_gpu=True, costs=costs, family=family
    )
    return dict(each), costs


def _window_bytes(config: FitConfig, numbers: int) -> int:
    each = 4 if config.data.cache_dtype == "float32" else 2
    return each * numbers // config.data.batch_size + 3 * config.model.height * config.model.width


def room_on(config: FitConfig, card: Card) -> float:
    """Bytes that a step may use there, within memory.budget."""
    return min(card.room, bytes_of(config.memory.budget)) if config.memory.budget else card.room


def seconds_on(one: OnCard, config: FitConfig, step: Step, rung: str) -> float:
    """Of a step on a rung there."""
    return one.known.ratio * step_seconds(config, step.memory, step.costs, rung, CARDS[one.card])


def _on_card(
    config: FitConfig, step: Step, name: str, clips: int | None, price: float | None, known: Experience
) -> OnCard:
    card = CARDS[name]
    room = room_on(config, card)
    wanted = RUNGS if config.memory.rung == "auto" else (config.memory.rung,)
    rung = next((rung for rung in wanted if step.memory[rung].peak <= room), None)
    there = OnCard(name, rung, known=known)
    if rung is None:
        return there
    each = seconds_on(there, config, step, rung)
    spent = each * config.trainer.max_steps * config.trainer.accumulate
    if not encodes_anew(config):
        spent += (
            _windows(config, clips or 0) / config.data.batch_size * known.ratio * seconds(step.costs[ENCODING], card)
        )
    spent += FORWARD * known.ratio * seconds(step.costs["none"], card) / config.data.batch_size * _forwards(config)
    hours = spent / 3600
    cost = None if price is None else hours * price * config.trainer.ranks
    return replace(there, step_seconds=each, hours=hours, cost=cost)


def _windows(config: FitConfig, clips: int) -> int:
    """That are encoded once, and kept: in memory, of those that come up alone."""
    drawn = config.trainer.max_steps * config.trainer.accumulate * config.data.batch_size * config.trainer.ranks
    windows = clips * (config.data.windows or 1) * (1 + config.data.horizontal_flip)
    return windows if config.data.cache == "disk" else min(windows, drawn)


def _forwards(config: FitConfig) -> int:
    """Of single clips: validations on their noise levels, and samples with guidance."""
    looks, steps = config.validation, config.trainer.max_steps
    clips = looks.clips + looks.training_clips + looks.generic_clips * (looks.generic is not None)
    validations = (steps // looks.every + 1) * clips * len(looks.sigmas)
    arms = 1 + (config.optimizer.ema_decay is not None)
    samples = (1 + (steps // looks.sample_every + 1) * arms) * looks.sample_inputs * looks.sampling_steps * 2
    return validations + samples
