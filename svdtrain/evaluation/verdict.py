"""What losses on the grid say, in one sentence. A pure function of the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from svdtrain.evaluation.intervals import Estimate, ratio_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

Kind = Literal["improving", "flat", "over-fitting", "forgetting", "worse", "unknown"]
NOTABLE = 0.01
"""Changes of a loss that are smaller say nothing, however sure they are: noise and clips are fixed, so most are sure."""
FORGOTTEN = 0.05
"""So much more loss on generic clips is forgetting: every adapter moves away from them a little."""
MOTION_KEPT, COPIED = 0.7, 0.5
"""Of the base's motion and of the clips'; of the clips' own distance to the nearest training frames."""
FEWEST = 4
"""Clips below which nothing is said: an interval of three is hardly one."""


@dataclass(frozen=True, eq=False)
class LossHistory:
    """Losses [looks, clips, noise levels] on fixed clips; the first look is the base."""

    steps: tuple[int, ...]
    held_out_KNS: np.ndarray
    training_KNS: np.ndarray | None = None
    generic_KNS: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """What is the matter, in words, and the step with the least held-out loss."""

    kind: Kind
    sentence: str
    best_step: int


def judged(history: LossHistory) -> Verdict:
    """Forgetting is said first, then over-fitting; each with how sure it is."""
    held_out_KNS, steps = history.held_out_KNS, history.steps
    best = min(range(len(steps)), key=lambda look: float((held_out_KNS[look].mean(0) / held_out_KNS[0].mean(0)).mean()))
    if (n := held_out_KNS.shape[1]) < FEWEST or len(steps) < 2:
        what = (
            f"{n} held-out clip{' says' if n == 1 else 's say'} nothing"
            if n < FEWEST
            else "there is nothing beside the base"
        )
        return Verdict("unknown", f"unknown: {what}", steps[best])
    kind, sentence = _of_held_out(history, best)
    generic_KNS = history.generic_KNS
    if generic_KNS is not None and (forgets := forgotten(ratio_of(generic_KNS[-1], generic_KNS[0]))):
        return Verdict("forgetting", f"{forgets}; besides {sentence}", steps[best])
    return Verdict(kind, sentence, steps[best])


def _of_held_out(history: LossHistory, best: int) -> tuple[Kind, str]:
    held_out_KNS, steps = history.held_out_KNS, history.steps
    now, since = ratio_of(held_out_KNS[-1], held_out_KNS[0]), ratio_of(held_out_KNS[-1], held_out_KNS[best])
    learnt = history.training_KNS is not None and ratio_of(
        history.training_KNS[-1], history.training_KNS[best if since.surely_above(1 + NOTABLE) else 0]
    ).surely_below(1 - NOTABLE)
    if since.surely_above(1 + NOTABLE):
        if best == 0 and not learnt:
            return "worse", f"worse: held-out loss is {change(now)} the base's"
        why = ", while that of training clips fell" if learnt else ""
        return (
            "over-fitting",
            f"over-fitting since step {steps[best]}: held-out loss is {change(since)} what it was then{why}",
        )
    if now.surely_below(1 - NOTABLE):
        falls = ratio_of(held_out_KNS[-1], held_out_KNS[-2]).surely_below(1 - NOTABLE)
        how = f", and still fell at step {steps[-1]}" if falls else f", and has not moved since step {steps[-2]}"
        return "improving", f"improving: held-out loss is {change(now)} the base's{how if len(steps) > 2 else ''}"
    if learnt:
        return "over-fitting", "over-fitting: loss fell on training clips, and not on held-out ones"
    return "flat", f"flat: held-out loss is {change(now)} the base's"


def change(ratio: Estimate) -> str:
    """12% (9% to 15%) below"""
    sign, way = (1, "above") if ratio.value >= 1 else (-1, "below")
    value = f"{sign * (ratio.value - 1):.0%}"
    if ratio.low is None or ratio.high is None:
        return f"{value} {way}"
    low, high = sorted(sign * (end - 1) for end in (ratio.low, ratio.high))
    return f"{value} ({low:.0%} to {high:.0%}) {way}"


def findings(tables: Mapping[str, Mapping[str, np.ndarray]], arm: str, *, base: str, clips: str) -> list[str]:
    """What videos show that a loss does not: tables[metric][arm] are numbers [N], a clip each."""
    found = [lost] if (lost := lost_motion(tables, arm, base=base, clips=clips)) else []
    if (copies := tables.get("nearest_training_frame")) and len(copies[base]) >= FEWEST:
        to_clips = _ratio(copies[arm], copies[clips])
        if to_clips.surely_below(COPIED) and to_clips.surely_below(_ratio(copies[base], copies[clips]).value):
            found.append(
                f"copies training frames: the nearest is {change(to_clips)} its distance from the held-out clips"
            )
    return found


def lost_motion(tables: Mapping[str, Mapping[str, np.ndarray]], arm: str, *, base: str, clips: str) -> str:
    """Empty where motion is kept, or nothing can be said of it."""
    if not (motion := tables.get("motion")) or len(motion[base]) < FEWEST:
        return ""
    to_base, to_clips = (_ratio(motion[arm], motion[other]) for other in (base, clips))
    if not (to_base.surely_below(MOTION_KEPT) and to_clips.surely_below(MOTION_KEPT)):
        return ""
    return f"motion is lost: {change(to_base)} the base's, {change(to_clips)} that of the clips"


def forgotten(generic: Estimate) -> str:
    """Of the ratio of losses on generic clips; empty where it is not sure."""
    sure = generic.surely_above(1 + FORGOTTEN)
    return f"forgetting: loss on generic clips is {change(generic)} the base's" if sure else ""


def _ratio(over_N: np.ndarray, under_N: np.ndarray) -> Estimate:
    return ratio_of(over_N[:, None], under_N[:, None])
