"""Which step, and which strength: the rules, on what has been found. docs/reference/evaluation.md says them in words."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from svdtrain.evaluation.intervals import Estimate, ratio_of
from svdtrain.evaluation.verdict import FEWEST, NOTABLE, findings, forgotten, lost_motion
from svdtrain.evaluation.work import BASE, CLIP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from svdtrain.config.strengths import Strength
    from svdtrain.evaluation.summary import Found
    from svdtrain.evaluation.work import Arm

WATCHED = ("motion", "nearest_training_frame")


@dataclass(frozen=True, eq=False)
class Candidate:
    """An adapter at a strength, and what was found of it."""

    arm: Arm
    losses_NS: np.ndarray
    """On held-out clips."""
    held_out: Estimate
    """Ratio to the base's loss."""
    generic: Estimate | None = None
    """Likewise, on generic clips."""
    motion: Estimate | None = None
    """Ratio to the motion of the base's videos."""
    motion_to_clips: Estimate | None = None
    """Ratio to that of the held-out clips."""
    against: tuple[str, ...] = ()
    """Why it is not to be used."""

    @property
    def strength(self) -> Strength:
        """That it is tried at."""
        return self.arm.strength


@dataclass(frozen=True, eq=False)
class Choice:
    """Of several strengths."""

    best: Candidate | None
    """None: none may be used."""
    least: Candidate | None = None
    """The least loss of those that may be used; from it the best does not surely differ."""
    ties: tuple[Candidate, ...] = ()
    """All that do not, the best among them."""


@dataclass(frozen=True, eq=False)
class Decision:
    """All that a choice comes to."""

    ranking: Sequence[Candidate]
    """The run's steps, as trained, the least held-out loss first."""
    passed_over: Mapping[str, str]
    """Arm -> how its videos lose motion."""
    step: Arm
    sweep: Sequence[Candidate]
    """That step at each strength."""
    choice: Choice


def ranked(found: Found, arms: Sequence[Arm]) -> list[Candidate]:
    """By held-out loss, the least first; of losses alone."""
    _, table = found.loss_table("held_out")
    told = [Candidate(arm, table[arm.label], ratio_of(table[arm.label], table[BASE])) for arm in arms]
    return sorted(told, key=lambda one: (not isfinite(one.held_out.value), one.held_out.value, -one.arm.step))


def loses_motion(found: Found, arm: Arm) -> str:
    """Empty where its videos keep motion, or where nothing can be said of it."""
    return lost_motion(_watched(found), arm.label, base=BASE, clips=CLIP)


def candidates(found: Found, arms: Sequence[Arm]) -> list[Candidate]:
    """In the order of the arms, with all that speaks against each."""
    (_, held_out), (keys, generic), tables = found.loss_table("held_out"), found.loss_table("generic"), _watched(found)
    told: list[Candidate] = []
    for arm in arms:
        mine_NS, name = held_out[arm.label], arm.label
        forgets = ratio_of(generic[name], generic[BASE]) if keys else None
        against = [] if name == BASE else findings(tables, name, base=BASE, clips=CLIP)
        against += [said] if forgets and (said := forgotten(forgets)) else []
        ratio, motion = ratio_of(mine_NS, held_out[BASE]), tables.get("motion", {})
        against += [] if isfinite(ratio.value) else ["its loss is no number"]
        seen = len(motion.get(BASE, ()))
        moves, of_clips = (
            ratio_of(motion[name][:, None], motion[other][:, None]) if seen else None for other in (BASE, CLIP)
        )
        told.append(Candidate(arm, mine_NS, ratio, forgets, moves, of_clips, tuple(against)))
    return told


def chosen(of: Sequence[Candidate]) -> Choice:
    """The least held-out loss that nothing speaks against; of those that are not surely worse, the one nearest to 1."""
    may = [one for one in of if not one.against]
    if not may:
        return Choice(None)
    least = min(may, key=lambda one: one.held_out.value)
    ties = [one for one in may if one is least or not _surely_worse(one, least)]
    best = min(ties, key=lambda one: (_from_1(one.strength), one.held_out.value))
    return Choice(best, least, tuple(ties))


def _surely_worse(one: Candidate, least: Candidate) -> bool:
    ratio = ratio_of(one.losses_NS, least.losses_NS)
    return ratio.n >= FEWEST and ratio.surely_above(1 + NOTABLE)


def _from_1(strength: Strength) -> float:
    return (strength.spatial - 1) ** 2 + (strength.temporal - 1) ** 2


def _watched(found: Found) -> Mapping[str, Mapping[str, np.ndarray]]:
    return {name: found.values(name) for name in WATCHED if name in found.plan.metrics and found.plan.inputs}


def around(best: Strength, swept: Sequence[Strength]) -> list[Strength]:
    """Other strengths of the halves to try beside the best: of each its own and its neighbours in the sweep, in every pair."""
    halves = [_neighbours(half, {value for one in swept for value in one}) for half in best]
    grid = [type(best)(spatial, temporal) for spatial in halves[0] for temporal in halves[1]]
    return [one for one in grid if one not in swept]


def _neighbours(value: float, swept: set[float]) -> list[float]:
    rising = sorted(swept)
    place = rising.index(value)
    return rising[max(0, place - 1) : place + 2]
