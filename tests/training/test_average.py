"""The moving average of the trained weights, against its recursion worked out in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.checkpoint import FolderCheckpoint
from svdtrain.training.module import FineTuning
from tests.tiny_runs import fit_config

DECAY, STEPS = 0.22, 5
Weights = dict[str, torch.Tensor]


class Notes(Callback):
    """The trained weights before the first step and after each optimizer step."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_train_start(self, trainer: Any, module: FineTuning) -> None:  # noqa: ANN401, ARG002
        self.weights = [copied(module)]

    def on_train_batch_end(self, trainer: Any, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        if trainer.global_step == len(self.weights):
            self.weights.append(copied(module))


def copied(module: FineTuning) -> Weights:
    return {name: p.clone() for name, p in module.state_dict().items()}


def trained(model: Path, dataset: Path, accumulate: int) -> tuple[FineTuning, WeightAverage, list[Weights]]:
    config = fit_config(
        model, dataset, f"trainer.max_steps={STEPS}", f"trainer.accumulate={accumulate}", "data.batch_size=1"
    )
    module, average, notes = build.build_module(config, build_family(config.model)), WeightAverage(DECAY), Notes()
    build.build_trainer(config, [], [notes, average]).fit(module, datamodule=build.build_data(config))
    return module, average, notes.weights


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_the_recursion_with_warm_up(model: Path, dataset: Path, accumulate: int) -> None:
    module, average, weights = trained(model, dataset, accumulate)
    assert len(weights) == STEPS + 1
    expected = {name: p.double() for name, p in weights[0].items()}
    for number, live in enumerate(weights[1:]):
        decay = min(DECAY, (1 + number) / (10 + number)) if number else 0.0
        expected = {name: decay * expected[name] + (1 - decay) * p.double() for name, p in live.items()}
    with average.applied(module):
        inside = copied(module)
    for name, value in inside.items():
        assert (value.double() - expected[name]).abs().max() < 1e-8
    moved = max(float((inside[name] - weights[-1][name]).abs().max()) for name in inside)
    assert moved > 1e-5, "the test cannot tell the average from the weights themselves"


def test_the_modules_own_weights_come_back(model: Path, dataset: Path) -> None:
    module, average, weights = trained(model, dataset, 1)
    with pytest.raises(RuntimeError, match="within"), average.applied(module):
        raise RuntimeError("within")
    assert all(torch.equal(p, weights[-1][name]) for name, p in module.state_dict().items())
    with average.applied(module):
        first = copied(module)
    with average.applied(module):
        assert all(torch.equal(p, first[name]) for name, p in module.state_dict().items())


def test_the_average_survives_a_checkpoint(model: Path, dataset: Path, tmp_path: Path) -> None:
    module, average, _ = trained(model, dataset, 1)
    FolderCheckpoint().save_checkpoint({"average": average.state_dict()}, tmp_path / "one")
    other = WeightAverage(DECAY)
    other.load_state_dict(FolderCheckpoint().load_checkpoint(tmp_path / "one")["average"])
    assert other.step == STEPS
    assert other.average is not None
    assert average.average is not None
    assert other.average.optimization_step == average.average.optimization_step == STEPS
    with average.applied(module):
        first = copied(module)
    with other.applied(module):
        assert all(torch.equal(p, first[name]) for name, p in module.state_dict().items())
    for each in (average.average, other.average):
        each.step([module.flat.values])
    assert all(
        torch.equal(*pair) for pair in zip(average.average.shadow_params, other.average.shadow_params, strict=True)
    )


def test_without_a_decay_there_is_no_average(model: Path, dataset: Path) -> None:
    config = fit_config(model, dataset)
    module, average = build.build_module(config, build_family(config.model)), WeightAverage(None)
    build.build_trainer(config, [], [average]).fit(module, datamodule=build.build_data(config))
    before = copied(module)
    with average.applied(module):
        assert all(torch.equal(p, before[name]) for name, p in module.state_dict().items())
    assert average.state_dict()["average"] is None
