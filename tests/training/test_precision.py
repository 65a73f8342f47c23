"""A base in half precision under fp32 weights that are trained: without autocast where the adapter's layers do without."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.callbacks.guard import NumericGuard
from tests.tiny_runs import fit_config


@pytest.mark.parametrize(
    ("words", "autocast"),
    [
        ([], False),
        (["adapter.kind=rslora"], False),
        (["speed.fused_lora=false"], True),
        (["adapter.kind=dora"], True),
        (["adapter=full"], True),
    ],
    ids=["lora", "rslora", "not fused", "dora", "full"],
)
def test_a_step_in_bf16(model: Path, dataset: Path, words: list[str], *, autocast: bool) -> None:
    config = fit_config(model, dataset, "trainer.precision=bf16-mixed", "trainer.max_steps=2", *words)
    module, seen = build.build_module(config, build_family(config.model)), set[bool]()
    before = {name: p.detach().clone() for name, p in module.trained_parameters().items()}

    def look(*_: Any) -> None:  # noqa: ANN401
        seen.add(torch.is_autocast_enabled("cpu"))

    module.denoiser.register_forward_pre_hook(look)
    guard = NumericGuard("raise", 1)
    build.build_trainer(config, [], [guard]).fit(module, datamodule=build.build_data(config))
    assert seen == {autocast}
    assert math.isfinite(module.last_loss)
    trained = module.trained_parameters()
    assert {p.dtype for p in trained.values()} == {torch.float32}
    frozen = {p.dtype for name, p in module.denoiser.named_parameters() if name not in trained}
    assert frozen <= {torch.bfloat16}
    assert any(not torch.equal(p, before[name]) for name, p in trained.items())
