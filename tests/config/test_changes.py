"""What a run that goes on may differ in: what was allowed by name, what is under it, and what follows it by reference."""

from __future__ import annotations

from typing import Any

import pytest

from svdtrain.config.changes import refuse_changes
from svdtrain.foundation.errors import UsageError

BEFORE = {
    "optimizer": {"learning_rate": 1e-4, "weight_decay": 0.01, "schedule": "constant"},
    "adapter": {"spatial": {"learning_rate": 1e-4}, "temporal": {"learning_rate": 2e-5}},
    "model": {"noise_levels": {"mean": 1.0}, "condition_noise": {"mean": -3.0}},
    "trainer": {"max_steps": 10},
    "seed": 0,
}
CASES = {
    "the key itself": ({"seed": 1}, ["seed"], ""),
    "another key": ({"seed": 1, "optimizer.weight_decay": 0.0}, ["seed"], "optimizer.weight_decay was 0.01"),
    "what follows it": (
        dict.fromkeys(["optimizer.learning_rate", "adapter.spatial.learning_rate"], 2e-4),
        ["optimizer.learning_rate"],
        "",
    ),
    "what follows it by a factor": (
        {"optimizer.learning_rate": 3e-4, "adapter.temporal.learning_rate": 6e-5},
        ["optimizer.learning_rate"],
        "",
    ),
    "one that does not follow": (
        {"adapter.spatial.learning_rate": 2e-4, "adapter.temporal.learning_rate": 3e-4},
        ["adapter.spatial.learning_rate"],
        "adapter.temporal.learning_rate was 2e-05, now it is 0.0003",
    ),
    "a namesake": (
        {"model.noise_levels.mean": 0.7, "model.condition_noise.mean": -2.0},
        ["model.noise_levels.mean"],
        "model.condition_noise.mean was -3.0",
    ),
    "all that is under it": ({"optimizer.learning_rate": 2e-4, "optimizer.weight_decay": 0.0}, ["optimizer"], ""),
    "part of a name": ({"optimizer.weight_decay": 0.0}, ["optimizer.weight"], "optimizer.weight_decay was 0.01"),
    "steps": ({"trainer.max_steps": 20}, [], ""),
    "steps of a cosine": (
        {"trainer.max_steps": 20, "optimizer.schedule": "cosine"},
        ["optimizer"],
        "trainer.max_steps was 10",
    ),
}


@pytest.mark.parametrize(("new", "allowed", "refused"), CASES.values(), ids=CASES)
def test_a_change_goes_as_far_as_it_is_allowed(new: dict[str, object], allowed: list[str], refused: str) -> None:
    now: dict[str, Any] = {name: {**part} if isinstance(part, dict) else part for name, part in BEFORE.items()}
    for key, value in new.items():
        _put(now, key.split("."), value)
    if not refused:
        return refuse_changes(BEFORE, now, allowed)
    with pytest.raises(UsageError) as raised:
        refuse_changes(BEFORE, now, allowed)
    assert refused in str(raised.value)
    return None


def _put(tree: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        tree[name] = {**tree[name]}
        tree = tree[name]
    tree[path[-1]] = value
