"""How long a training step takes on a card: its operations, copies to the CPU, and encoding where that is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.planning.cards import LINK, seconds
from svdtrain.planning.training_step import ENCODING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svdtrain.config.schema import FitConfig
    from svdtrain.planning.cards import Card
    from svdtrain.planning.costs import Costs
    from svdtrain.planning.memory import MemoryPrediction


def encodes_anew(config: FitConfig) -> bool:
    """Whether each step encodes its clips: nothing keeps them, or a clip's window is hardly ever the same again."""
    return config.data.cache != "disk" and (config.data.cache == "none" or not config.data.windows)


def step_seconds(
    config: FitConfig, memory: Mapping[str, MemoryPrediction], costs: Mapping[str, Costs], rung: str, card: Card
) -> float:
    """Of a step of one batch, once it has settled. memory and costs: by rung, of predict_rungs."""
    spent = seconds(costs[rung], card)
    if encodes_anew(config):
        spent += seconds(costs[ENCODING], card)
    if rung == "offload" and "nested" in memory:
        spent += (memory["nested"].activations - memory[rung].activations) / LINK
    return spent
