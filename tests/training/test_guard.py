"""Numbers that are not finite reach no weight: by default the run ends, or the step is left out; spikes are told."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from svdtrain.acceleration.flat import FlatParameters
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import NumericError
from svdtrain.training import build
from svdtrain.training.callbacks.guard import ENOUGH, MOST_OVERFLOWS, NumericGuard
from svdtrain.training.module import ClipLoss, FineTuning
from tests.tiny_runs import fit_config


class Spoiler(Callback):
    """Makes the loss or a gradient infinite or not a number at some steps."""

    def __init__(self, steps: set[int], where: str) -> None:
        self.steps, self.where = steps, where
        self.before: dict[int, dict[str, torch.Tensor]] = {}
        self.spoils = False

    def on_fit_start(self, trainer: Any, module: FineTuning) -> None:  # noqa: ANN401, ARG002
        first = next(iter(module.trained_parameters().values()))
        if self.where == "gradient":
            first.register_hook(lambda gradient: gradient * float("nan") if self.spoils else gradient)
        else:
            module.denoiser.register_forward_hook(lambda _, __, out: (out[0] * math.inf,) if self.spoils else out)

    def on_train_batch_start(self, trainer: Any, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        step = trainer.global_step
        self.spoils = step in self.steps
        self.before[step] = {name: p.clone() for name, p in module.state_dict().items()}


def trained(model: Path, dataset: Path, spoiler: Spoiler, *words: str) -> tuple[FineTuning, NumericGuard]:
    config = fit_config(model, dataset, *words)
    module = build.build_module(config, build_family(config.model))
    guard = NumericGuard(config.trainer.on_nonfinite, config.trainer.max_skipped)
    build.build_trainer(config, [], [spoiler, guard]).fit(module, datamodule=build.build_data(config))
    return module, guard


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, other[name]) for name, p in one.items())


@pytest.mark.parametrize(
    ("where", "said"),
    [("loss", r"the loss of clip 'clip-\d@.*' at step 1, sigma .* is (nan|inf)"), ("gradient", "at step 1 is nan")],
)
def test_what_is_not_finite_ends_the_run_before_the_weights_change(
    model: Path, dataset: Path, where: str, said: str
) -> None:
    spoiler = Spoiler({1}, where)
    with pytest.raises(NumericError, match=said) as caught:
        trained(model, dataset, spoiler, "trainer.max_steps=3")
    assert caught.value.exit_code == 6
    assert not same(spoiler.before[0], spoiler.before[1]), "step 0 was taken"


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_such_a_step_is_left_out_on_request(
    model: Path, dataset: Path, where: str, accumulate: int, caplog: pytest.LogCaptureFixture
) -> None:
    spoiler = Spoiler({1}, where)
    words = ["trainer.max_steps=4", "trainer.on_nonfinite=skip", f"trainer.accumulate={accumulate}"]
    module, guard = trained(model, dataset, spoiler, *words)
    assert guard.skipped == [1]
    assert same(spoiler.before[1], spoiler.before[2]), "nothing of it has come through, neither gradient nor momentum"
    assert not same(spoiler.before[2], spoiler.before[3])
    assert all(p.isfinite().all() for p in module.state_dict().values())
    [line] = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert line.startswith("step 1 is skipped: the ")


def test_but_not_again_and_again(model: Path, dataset: Path) -> None:
    words = ["trainer.max_steps=9", "trainer.on_nonfinite=skip", "trainer.max_skipped=2"]
    with pytest.raises(NumericError, match=r"3 of the last 100 steps were skipped; now the gradient at step 4"):
        trained(model, dataset, Spoiler({1, 2, 4}, "gradient"), *words)


def test_a_skipped_step_counts_after_a_resume_and_leaves_the_window() -> None:
    guard, flat = NumericGuard("skip", 1), FlatParameters({"all": [torch.nn.Parameter(torch.ones(2))]})
    guard.load_state_dict({"skipped": [7]})
    assert NumericGuard("skip", 1).state_dict() == {"skipped": []}
    for step, ends in ((107, False), (150, True)):
        fault = NumericError("planted")
        module: Any = SimpleNamespace(flat=flat, read=lambda _, fault=fault: fault, gradient_norm=0.0)
        trainer: Any = SimpleNamespace(global_step=step)
        if ends:
            with pytest.raises(NumericError, match="2 of the last 100"):
                guard.on_before_optimizer_step(trainer, module)
        else:
            guard.on_before_optimizer_step(trainer, module)


def test_fp16_that_only_overflows_ends_with_the_trace_of_its_scale() -> None:
    guard = NumericGuard("raise", 1)
    flat = FlatParameters({"all": [torch.nn.Parameter(torch.ones(2))]})
    module: Any = SimpleNamespace(flat=flat, read=lambda _: None, gradient_norm=math.inf)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    trainer: Any = SimpleNamespace(global_step=0, precision_plugin=SimpleNamespace(scaler=scaler))
    scaler.scale(torch.ones(1))
    for trainer.global_step in range(MOST_OVERFLOWS):
        guard.on_before_optimizer_step(trainer, module)
        scaler.update(scaler.get_scale() / 2)
    trainer.global_step = MOST_OVERFLOWS
    with pytest.raises(NumericError, match=r"fp16 overflowed at 21 steps up to 20, with loss scales 65536 .* 0\.0625"):
        guard.on_before_optimizer_step(trainer, module)


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (5.0, False), (15.0, True), (1e4, True)])
def test_a_spike_is_told_by_what_is_usual_at_its_noise_level(
    factor: float, *, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Losses differ a hundredfold between levels; within one, only a jump counts."""
    caplog.set_level(logging.WARNING)
    guard = NumericGuard("raise", 1)
    trainer: Any = SimpleNamespace(global_step=0, global_rank=0)

    def seen(sigma: float, loss: float) -> None:
        trainer.global_step += 1
        module: Any = SimpleNamespace(last_clips=[ClipLoss(0, "clip-3@1.0", sigma, loss)])
        guard.on_train_batch_end(trainer, module)

    for index in range(2 * ENOUGH):
        seen(0.5, 0.01 * (1 + index % 2))
        seen(20.0, 1.0 + index % 2)
    assert guard.spikes == 0
    seen(0.5, 0.014 * factor)
    assert guard.spikes == int(told)
    assert ("the loss of clip 'clip-3@1.0' at step 81, sigma 0.5" in caplog.text) == told
