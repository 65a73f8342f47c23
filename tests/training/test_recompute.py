"""The memory ladder: equal gradients on every rung, for less memory, in the temporal half too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from svdtrain.acceleration.levers import LEVERS
from svdtrain.acceleration.recompute import RUNGS
from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.module import FineTuning
from tests.tiny_runs import fit_config

KEPT = {"none": 1.0, "feed_forward": 0.9, "blocks": 0.7, "nested": 0.7, "offload": 0.7}
"""Rung -> at most so much of what the graph keeps without it."""


def module_of(model: Path, dataset: Path, rung: str, *words: str) -> FineTuning:
    """B far from zero, so that every weight of the adapter has a gradient."""
    config = fit_config(model, dataset, f"memory={rung}", *words)
    module = build.build_module(config, build_family(config.model))
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.trained_parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    return module


def gradients(module: FineTuning, dataset: Path, model: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of one step, and the bytes that the graph kept for the backward pass."""
    batch = next(iter(build.build_data(fit_config(model, dataset)).train_dataloader()))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.training_step(batch, 0)
    loss.backward()
    found = {name: p.grad.clone() for name, p in module.trained_parameters().items() if p.grad is not None}
    return found, sum(kept.values())


@pytest.mark.parametrize("levers", [True, False])
def test_gradients_are_equal_to_the_bit_and_less_is_kept(model: Path, dataset: Path, levers: bool) -> None:
    switches = [f"speed.{name}={levers}".lower() for name in sorted(set(LEVERS) - {"fused_pointwise"})]
    plain, plain_bytes = gradients(module_of(model, dataset, "none", *switches), dataset, model)
    assert all(float(gradient.abs().max()) > 0 for gradient in plain.values())
    for rung in RUNGS:
        again, again_bytes = gradients(module_of(model, dataset, rung, *switches), dataset, model)
        assert set(plain) == set(again)
        assert all(torch.equal(again[name], gradient) for name, gradient in plain.items()), rung
        assert again_bytes <= KEPT[rung] * plain_bytes, rung


@pytest.mark.parametrize("kind", ["SpatioTemporalResBlock", "BasicTransformerBlock", "TemporalBasicTransformerBlock"])
def test_every_repeated_block_is_computed_twice(model: Path, dataset: Path, kind: str) -> None:
    calls: dict[str, int] = {}
    module = module_of(model, dataset, "blocks", "adapter=full")
    blocks = {name: m for name, m in module.denoiser.named_modules() if type(m).__name__ == kind}
    assert blocks

    def count(name: str, *_: object) -> None:
        calls[name] = calls.get(name, 0) + 1

    for name, block in blocks.items():
        child = next(block.children())
        child.register_forward_pre_hook(partial(count, name))
    gradients(module, dataset, model)
    assert calls == dict.fromkeys(blocks, 2)
