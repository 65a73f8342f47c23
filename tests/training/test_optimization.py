"""Learning rates over steps and by half, and what full fine-tuning trains."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.acceleration.flat import FlatParameters
from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.module import FineTuning
from svdtrain.training.optimization import OptimizerSettings, build_optimizer, group_weights, schedule_factor
from tests.tiny_runs import fit_config

SETTINGS = OptimizerSettings({"spatial": 1e-3}, (0.9, 0.99), 0.1, 4, "constant", 20)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, {0: 1.0, 1: 1.0, 19: 1.0, 100: 1.0}),
        ("constant", 4, {0: 0.2, 1: 0.4, 3: 0.8, 4: 1.0, 19: 1.0}),
        ("cosine", 4, {0: 0.2, 3: 0.8, 4: 1.0, 8: (1 + math.cos(math.pi / 4)) / 2, 12: 0.5, 20: 0.0, 30: 0.0}),
        ("cosine", 0, {0: 1.0, 10: 0.5, 20: 0.0}),
    ],
)
def test_schedules(schedule: str, warmup: int, expected: dict[int, float]) -> None:
    settings = replace(SETTINGS, schedule=schedule, warmup_steps=warmup)
    assert {step: schedule_factor(step, settings) for step in expected} == pytest.approx(expected, abs=1e-12)


def test_no_step_of_a_run_has_a_rate_of_zero() -> None:
    """Steps count from 0: neither the first of a warm-up nor the last of a cosine may be lost."""
    settings = replace(SETTINGS, schedule="cosine")
    assert min(schedule_factor(step, settings) for step in range(settings.max_steps)) > 0


def test_rates_reach_adamw_step_by_step() -> None:
    layer = torch.nn.Linear(1, 1)
    settings = replace(SETTINGS, warmup_steps=2, max_steps=6, schedule="cosine")
    built = build_optimizer(FlatParameters(group_weights(layer, {}, settings)).groups, settings)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(6):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    cosine = [1e-3 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
    assert seen == pytest.approx([1e-3 / 3, 2e-3 / 3, *cosine], abs=1e-12)


def groups_of(module: FineTuning) -> list[dict[str, Any]]:
    """As AdamW has them: one flat parameter each."""
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert all(len(group["params"]) == 1 for group in groups)
    return groups


def members_of(module: FineTuning) -> dict[str, list[str]]:
    """The names of each group's weights, found by where they lie in the flat parameter; every one is in one."""
    found: dict[str, list[str]] = {}
    for group in groups_of(module):
        flat = group["params"][0]
        start, end = flat.data_ptr(), flat.data_ptr() + flat.nbytes
        within = {n: p for n, p in module.trained_parameters().items() if start <= p.data_ptr() < end}
        found[group["name"]] = list(within)
        assert within
        assert sum(p.numel() for p in within.values()) <= flat.numel()
    assert sorted(name for names in found.values() for name in names) == sorted(module.trained_parameters())
    return found


def module_of(model: Path, dataset: Path, *words: str) -> FineTuning:
    config = fit_config(model, dataset, *words)
    return build.build_module(config, build_family(config.model))


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        (
            ["adapter.spatial.learning_rate=3e-4", "adapter.temporal.learning_rate=5e-5"],
            {"spatial": 3e-4, "temporal": 5e-5},
        ),
        (["adapter.targets=temporal", "adapter.temporal.learning_rate=5e-5"], {"temporal": 5e-5}),
        (["adapter.targets=spatial", "optimizer.learning_rate=2e-3"], {"spatial": 2e-3}),
    ],
)
def test_each_half_has_its_own_group_and_rate(
    model: Path, dataset: Path, words: list[str], rates: dict[str, float]
) -> None:
    module = module_of(model, dataset, *words)
    assert {group["name"]: group["lr"] for group in groups_of(module)} == pytest.approx(rates)
    for group, members in members_of(module).items():
        assert all("lora_" in name for name in members)
        assert {"temporal_" in name for name in members} == {group == "temporal"}


def test_lora_plus_gives_lora_b_a_faster_rate(model: Path, dataset: Path) -> None:
    module = module_of(model, dataset, "optimizer.learning_rate=1e-3", "optimizer.lora_plus_ratio=16")
    groups = groups_of(module)
    for group, members in members_of(module).items():
        assert {".lora_B." in name for name in members} == {group.endswith(" lora_B")}
    for group in groups:
        fast = group["name"].endswith(" lora_B")
        half = 1e-3 if group["name"].startswith("spatial") else 2e-4
        assert group["lr"] == pytest.approx(half * (16 if fast else 1))


def test_blocks_hold_all_that_is_trained(model: Path, dataset: Path) -> None:
    everywhere = set(module_of(model, dataset).halves)
    within = set(module_of(model, dataset, "adapter.blocks=[mid_block,up_blocks.1]").halves)
    assert within == {name for name in everywhere if name.startswith(("mid_block.", "up_blocks.1."))}
    assert within


def test_ranks_apart_give_each_half_its_own(model: Path, dataset: Path) -> None:
    module = module_of(model, dataset, "adapter.spatial.rank=3", "adapter.temporal.rank=5")
    ranks = {("temporal_" in n, p.shape[0]) for n, p in module.trained_parameters().items() if "lora_A" in n}
    assert ranks == {(False, 3), (True, 5)}


def test_full_fine_tuning_trains_every_weight(model: Path, dataset: Path) -> None:
    module = module_of(model, dataset, "adapter=full", "optimizer.learning_rate=2e-4")
    (group,) = groups_of(module)
    assert (group["name"], group["lr"]) == ("all", 2e-4)
    assert set(members_of(module)["all"]) == {name for name, _ in module.denoiser.named_parameters()}
    assert not [name for name, _ in module.denoiser.named_parameters() if "lora" in name]
    frozen = [*module.family.vae.parameters(), *module.family.image_encoder.parameters()]  # type: ignore[attr-defined]
    assert not any(p.requires_grad for p in frozen)
