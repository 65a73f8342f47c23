"""A run that is cut anywhere and goes on, with another number of workers, is the run that was never cut."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file

from svdtrain.commands import fit
from svdtrain.training.checkpoint import checkpoints, step_of
from tests.tiny_runs import fit_config

STEPS = 6
EXAMPLES = int(os.environ.get("SVDTRAIN_TEST_CUTS", "4"))
"""More than CI's: SVDTRAIN_TEST_CUTS=200 pytest tests/training/test_cuts.py."""


def settings_of(accumulate: int, average: bool, every: int) -> list[str]:
    return [
        f"trainer.max_steps={STEPS}",
        "trainer.save_every=1",
        "trainer.keep_checkpoints=99",
        "optimizer.learning_rate=1e-2",
        "optimizer.warmup_steps=2",
        "data.batch_size=1",
        f"trainer.accumulate={accumulate}",
        f"optimizer.ema_decay={0.9 if average else 'null'}",
        f"validation.every={every}",
    ]


def cut(whole: Path, step: int, to: Path) -> Path:
    """What lay there when it was killed after this step's save."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(whole, to)
    for checkpoint in checkpoints(to):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(to / "adapter")
    return to


def assert_same(one: Path, other: Path) -> None:
    """The adapter's very bytes; and every tensor of the last checkpoint: moments, averages, the loss's history."""
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (one / adapter).read_bytes() == (other / adapter).read_bytes()
    file = Path("checkpoints") / f"step-{STEPS:06d}" / "tensors.safetensors"
    ours, theirs = load_file(one / file), load_file(other / file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    step=some.integers(1, STEPS - 1),
    again=some.integers(1, STEPS - 1),
    accumulate=some.sampled_from([1, 2, 4]),
    workers=some.sampled_from([0, 2]),
    average=some.booleans(),
    every=some.sampled_from([1, 2, 5]),
)
def test_wherever_it_is_cut(
    model: Path,
    dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
    step: int,
    again: int,
    accumulate: int,
    workers: int,
    average: bool,
    every: int,
) -> None:
    """Cut twice, where the second cut comes later than the first."""
    words = settings_of(accumulate, average, every)
    place = tmp_path_factory.getbasetemp() / "cuts"
    whole = place / f"{accumulate}-{average}-{every}"
    if not (whole / "adapter").exists():
        assert fit.run(fit_config(model, dataset, *words, f"run_dir={whole}"), []) == 0
    resumed = cut(whole, step, place / "resumed")
    worded = [*words, f"data.workers={workers}", f"resume={resumed}"]
    assert fit.run(fit_config(model, dataset, *worded), []) == 0
    assert_same(whole, resumed)
    if again > step:
        assert fit.run(fit_config(model, dataset, *words, f"resume={cut(resumed, again, place / 'again')}"), []) == 0
        assert_same(whole, place / "again")
