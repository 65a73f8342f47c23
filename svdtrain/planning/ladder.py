"""`memory=auto`: the fastest rung of the memory ladder whose predicted peak fits, chosen before the model is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from svdtrain.acceleration.recompute import RUNGS
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.hardware import choose_device, local_rank
from svdtrain.foundation.out_of_memory import shown_size
from svdtrain.planning.cards import CARDS, MARGIN, card_named
from svdtrain.planning.duration import step_seconds
from svdtrain.planning.experience import NONE, by_runs, experience
from svdtrain.planning.relief import MOST_MENDS, mends
from svdtrain.planning.training_step import predict_rungs

if TYPE_CHECKING:
    from svdtrain.config.schema import FitConfig
    from svdtrain.planning.costs import Costs
    from svdtrain.planning.memory import MemoryPrediction
    from svdtrain.planning.training_step import Adapt, Sizes

UNITS = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Rung:
    """What `memory=auto` became."""

    name: str
    why: str
    """The line that says so."""
    predicted: MemoryPrediction | None
    """None where nothing had to be predicted."""
    step_seconds: float | None = None
    """Predicted, where the card is in the table; mended by earlier runs on such a card."""
    table_seconds: float | None = None
    """Not mended; None where clips are of several sizes, too: what they take is no measure of it."""
    model: str = ""
    """Whose it is."""

    def as_record(self) -> dict[str, float | str | None] | None:
        """What run.json keeps of it."""
        if not self.predicted:
            return None
        times = {"step_seconds": self.step_seconds, "table_seconds": self.table_seconds}
        return {"peak_bytes": self.predicted.peak, "model": self.model, **times}


def settle(config: FitConfig, adapt: Adapt, *, sizes: Sizes = ()) -> Rung | None:
    """The rung to train on, and what it is predicted to need; None where the settings name one and nothing is predicted.

    adapt and sizes: as of predict_fit, which takes seconds a rung; on a CPU without a budget nothing is predicted.
    Raises UsageError where, of memory=auto, no rung meets memory.budget or what the GPU has free.
    """
    chosen = None if config.memory.rung == "auto" else config.memory.rung
    there = _there(config)
    if there is None:
        return None if chosen else Rung("none", "memory         none: a CPU, and no memory.budget", None)
    room, words = there
    ahead = config.data.cache == "disk"
    tried: dict[str, MemoryPrediction] = {}
    costs: dict[str, Costs] = {}
    card = card_named(torch.cuda.get_device_name()) if choose_device(config.trainer.device) == "cuda" else None
    rungs = (
        RUNGS if not chosen else ("nested", chosen) if chosen == "offload" else (chosen,)
    )  # whose copies are the rest
    for name, predicted in predict_rungs(config, adapt, rungs, sizes=sizes, encoded_ahead=ahead, costs=costs):
        tried[name] = predicted
        if name == chosen or (not chosen and predicted.peak <= room):
            above = [f"{rung} needs {shown_size(tried[rung].peak)}" for rung in list(tried)[-2:-1] if not chosen]
            reason = "; ".join([f"predicted {shown_size(predicted.peak)} of {words}", *above])
            table = step_seconds(config, tried, costs, name, CARDS[card]) if card else None
            known = experience(config.model.name).get(card, NONE) if card else NONE
            spent = table and table * known.ratio
            mended = f" ({by_runs(known)})" if known.runs else ""
            time = f"; {spent:.2f} s a step{mended}" if spent else ""
            teaches = table if len(set(sizes)) < 2 else None
            return Rung(name, f"memory         {name}: {reason}{time}", predicted, spent, teaches, config.model.name)
    least = min(tried, key=lambda name: tried[name].peak)
    at_least = with_rung(config, least)
    found = list(islice(mends(at_least, adapt, tried[least], sizes=sizes, encoded_ahead=ahead), MOST_MENDS))
    best = next((mend for mend in found if mend.peak <= room), None)
    hint = f"{best.words} memory={least} ({shown_size(best.peak)})" if best else ""
    raise UsageError(
        f"memory=auto: no rung fits {words}; the least is {shown_size(tried[least].peak)}, by memory={least}",
        hint or "fewer model.frames, a smaller model.height and width, a smaller model, or a larger card",
    )


def with_rung(config: FitConfig, name: str) -> FitConfig:
    """The same settings on this rung."""
    return config.model_copy(update={"memory": config.memory.model_copy(update={"rung": name})})


def bytes_of(budget: str) -> int:
    """`24GiB` -> bytes."""
    match = re.fullmatch(r"([\d.]+)\s?(\w+)", budget)
    assert match, budget
    return round(float(match[1]) * UNITS[match[2]])


def _there(config: FitConfig) -> tuple[float, str] | None:
    """Bytes that the step may use, and words for them; None: as many as it likes."""
    if config.memory.budget:
        return bytes_of(config.memory.budget), f"memory.budget={config.memory.budget}"
    if choose_device(config.trainer.device) == "cpu":
        return None
    room = torch.cuda.mem_get_info(local_rank())[0] * (1 - MARGIN)
    return room, f"{shown_size(room)} that the GPU has free"
