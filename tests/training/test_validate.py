"""Held-out losses on the grid: the base's own before the first step, reproducible, and comparable between runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svdtrain.acceleration.levers import accelerate
from svdtrain.config.schema import FitConfig
from svdtrain.evaluation.noise_grid import losses_on_grid
from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.callbacks.validate import SigmaGridValidation
from svdtrain.training.module import FineTuning
from tests.tiny_runs import fit_config

SIGMAS = [0.1, 2.0, 50.0]


def validated(
    config: FitConfig, state: dict[str, object] | None = None, every: int = 100
) -> tuple[FineTuning, SigmaGridValidation]:
    """A fit with nothing but validation."""
    module, data = build.build_module(config, build_family(config.model)), build.build_data(config)
    validation = SigmaGridValidation({"held_out": data.held_out(2)}, SIGMAS, every, WeightAverage(None))
    if state:
        validation.load_state_dict(state)
    build.build_trainer(config, [], [validation]).fit(module, datamodule=data)
    return module, validation


def test_the_ratio_is_one_before_the_first_step_and_moves_with_the_model(model: Path, dataset: Path) -> None:
    config = fit_config(model, dataset, "optimizer.learning_rate=1e-2", "trainer.max_steps=3")
    module, validation = validated(config, every=2)
    assert list(validation.ratios) == [0, 2, 3]
    assert validation.ratios[0] == 1.0
    assert validation.ratios[2] != 1.0
    base = build_family(config.model)
    base.denoiser.requires_grad_(False)  # torch takes another kernel for weights that want gradients
    accelerate(base.denoiser, config.speed.levers)
    own_NS = losses_on_grid(base, build.build_data(config).held_out(2), SIGMAS)
    assert validation.losses["held_out"][0] == own_NS.tolist(), "an adapter starts as the identity"
    now = losses_on_grid(module.family, validation.clips["held_out"], SIGMAS).mean(0)
    ratios = [loss / base_loss for loss, base_loss in zip(now, own_NS.mean(0), strict=True)]
    assert validation.ratios[3] == pytest.approx(sum(ratios) / len(ratios), rel=1e-6)


def test_accumulated_batches_are_not_validated_apart(model: Path, dataset: Path) -> None:
    config = fit_config(model, dataset, "trainer.accumulate=2", "trainer.max_steps=2", "data.batch_size=1")
    counted: list[int] = []
    module, data = build.build_module(config, build_family(config.model)), build.build_data(config)
    validation = SigmaGridValidation({"held_out": data.held_out(1)}, [1.0], 1, WeightAverage(None))
    hook = module.denoiser.register_forward_pre_hook(lambda _m, _args: counted.append(int(torch.is_grad_enabled())))
    build.build_trainer(config, [], [validation]).fit(module, datamodule=data)
    hook.remove()
    assert counted == [0, 1, 1, 0, 1, 1, 0]


def test_a_resumed_run_keeps_its_yardstick(model: Path, dataset: Path) -> None:
    base = [[1.0, 2.0, 4.0], [3.0, 2.0, 8.0]]
    kept = {"losses": {"held_out": {0: base}}, "ratios": {0: 1.0}, "last_step": 0}
    _, validation = validated(fit_config(model, dataset), state=dict(kept))
    assert validation.losses["held_out"][0] == base
    assert list(validation.ratios) == [0, 2]
    ratios_S = np.sum(validation.losses["held_out"][2], axis=0) / np.sum(base, axis=0)
    assert validation.ratios[2] == pytest.approx(ratios_S.mean(), rel=1e-12)


def test_the_verdict_is_of_the_looks() -> None:
    validation = SigmaGridValidation({"held_out": []}, SIGMAS, 1, WeightAverage(None))
    clips = [[1.0 + n, 2.0, 4.0] for n in range(6)]
    for step, ratio in ((0, 1.0), (50, 0.7), (100, 0.9)):
        validation.losses["held_out"][step] = [[ratio * loss for loss in losses] for losses in clips]
    assert validation.verdict().sentence.startswith("over-fitting since step 50: held-out loss is 29% ")
    validation.losses["held_out"][150] = [[0.1] * 3]
    assert validation.verdict().best_step == 50, "of other clips than the base's"
