"""The step: what it draws, what it reports, what it keeps, and when it refuses to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.adapters.targets import half_of
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import ModelError
from svdtrain.training import build
from svdtrain.training.module import LEVEL_EDGES, FineTuning
from svdtrain.types import ClipBatch
from tests.tiny_models import FRAMES, SIZE
from tests.tiny_runs import fit_config

NO_CACHE = "data.cache=none"
HALVES = ("spatial", "temporal")


@pytest.fixture
def make(model: Path, dataset: Path) -> Callable[..., FineTuning]:
    def made(*words: str, clips_per_step: int = 4) -> FineTuning:
        config = fit_config(model, dataset, f"data.batch_size={clips_per_step}", *words)
        return build.build_module(config, build_family(config.model))

    return made


def batch(positions: Iterable[int]) -> ClipBatch:
    places = tuple(positions)
    pixels = [torch.rand(FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(p)) * 2 - 1 for p in places]
    return ClipBatch(
        pixels_BTCHW=torch.stack(pixels),
        fps_B=torch.tensor([7.0 + p for p in places]),
        motion_bucket_B=torch.tensor([20.0 * (p % 8) for p in places]),
        keys_B=tuple(f"clip-{p}" for p in places),
        positions_B=places,
    )


def losses_of(module: FineTuning, batches: Iterable[ClipBatch]) -> tuple[list[float], list[float]]:
    """(sigmas, losses) of every clip, in order."""
    module.losses.clear()
    with torch.no_grad():
        for each in batches:
            module.training_step(each, 0)
    module.read(torch.zeros(()))
    return [sigma for sigma, _ in module.losses], [loss for _, loss in module.losses]


def test_a_clips_loss_does_not_depend_on_its_batch(make: Callable[..., FineTuning]) -> None:
    module = make(NO_CACHE, "trainer.condition_dropout=0.5")
    sigmas, losses = losses_of(module, [batch(range(4))])
    for parts in ([(0, 1), (2, 3)], [(3,), (1, 0), (2,)]):
        order = [p for part in parts for p in part]
        other_sigmas, other_losses = losses_of(module, [batch(part) for part in parts])
        assert other_sigmas == [sigmas[p] for p in order]
        assert other_losses == pytest.approx([losses[p] for p in order], rel=1e-4)
    assert len(set(losses)) == 4


def test_a_step_is_a_pure_function_of_seed_and_position(make: Callable[..., FineTuning]) -> None:
    first = losses_of(make(), [batch(range(4))])
    torch.manual_seed(99)
    assert losses_of(make(), [batch(range(4))]) == first
    assert losses_of(make("seed=1"), [batch(range(4))])[0] != first[0]
    assert losses_of(make(), [batch(range(4, 8))])[0] != first[0]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_noise_levels_are_stratified_over_the_global_batch(make: Callable[..., FineTuning], batch_size: int) -> None:
    """Whatever part of an optimizer step one batch is, its 8 clips take one level from each eighth of the distribution."""
    module = make(clips_per_step=8)
    for step in range(3):
        uniform: list[float] = []
        for start in range(8 * step, 8 * step + 8, batch_size):
            draws = module.draws(batch(range(start, start + batch_size)))
            uniform += draws.stratified("noise level").tolist()
        assert sorted(int(u * 8) for u in uniform) == list(range(8))


def test_losses_by_level_are_exact_parts_of_the_mean(make: Callable[..., FineTuning]) -> None:
    module = make()
    levels = [0.01, 0.09, *LEVEL_EDGES, 600.0]
    module.record(torch.linspace(0.1, 0.9, len(levels)), torch.tensor(levels), [str(s) for s in levels])
    module.read(torch.zeros(()))
    losses = [loss for _, loss in module.losses]
    rows = module.losses_by_level()
    names = [name.removeprefix("share_") for name in rows if name.startswith("share_")]
    assert len(names) == len(LEVEL_EDGES) + 1
    assert sum(rows[f"share_{name}"] for name in names) == pytest.approx(1.0, abs=1e-12)
    assert sum(rows[f"share_{name}"] * rows[f"loss_{name}"] for name in names) == pytest.approx(rows["loss"], abs=1e-12)
    assert rows["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert rows["loss_sigma_below_0.1"] == pytest.approx((losses[0] + losses[1]) / 2)
    assert module.losses_by_level() == {}, "each clip is reported once"


def test_the_loss_is_the_mean_of_what_is_recorded(make: Callable[..., FineTuning]) -> None:
    module = make()
    with torch.no_grad():
        loss = module.training_step(batch(range(4)), 0)
    module.read(torch.zeros(()))
    assert float(loss) == pytest.approx(module.losses_by_level()["loss"], rel=1e-6)


def test_a_cached_clip_gives_the_same_bits(make: Callable[..., FineTuning]) -> None:
    fresh, cached = make(NO_CACHE), make("data.cache=memory")
    again = replace(batch(range(4)), positions_B=(4, 5, 6, 7))
    expected = losses_of(fresh, [batch(range(4)), again])
    assert losses_of(cached, [batch(range(4)), again]) == expected
    assert cached.cache is not None
    blank = replace(again, pixels_BTCHW=torch.zeros_like(again.pixels_BTCHW))
    kept = cached.cache.get(again.keys_B, "cpu")
    assert kept is not None
    for name, value in vars(kept).items():
        assert torch.equal(value, getattr(fresh.family.encode_clips(again), name)), name
        assert not torch.equal(value, getattr(fresh.family.encode_clips(blank), name)), name


def test_a_lone_frame_teaches_no_motion_and_the_next_clip_does(make: Callable[..., FineTuning]) -> None:
    module = make(NO_CACHE, "adapter.targets=both")
    weights = {half: [p for n, p in module.trained_parameters().items() if half_of(n) == half] for half in HALVES}
    every = [p for half in HALVES for p in weights[half]]
    module.denoiser.register_forward_hook(lambda _, __, out: (out[0] + sum(p.sum() for p in every),))
    clip = batch([0])
    for frames, learning in ((1, {"spatial"}), (FRAMES, set(HALVES)), (1, {"spatial"})):
        module.training_step(replace(clip, pixels_BTCHW=clip.pixels_BTCHW[:, :frames]), 0).backward()
        assert {half for half in HALVES if any(p.grad is not None and p.grad.any() for p in weights[half])} == learning
        for parameter in every:
            parameter.grad = None


@pytest.mark.parametrize(("rate", "expected"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_conditions_are_dropped_per_clip(make: Callable[..., FineTuning], rate: float, expected: set[bool]) -> None:
    module = make(f"trainer.condition_dropout={rate}", clips_per_step=8)
    seen: list[Any] = []
    hook = module.denoiser.register_forward_pre_hook(lambda _m, args: seen.extend([args[0], args[2], args[3]]))
    losses_of(module, [batch(range(8))])
    hook.remove()
    images_BCHW, embeddings_BLD, ids_BD = seen[0][:, 0, 4:], seen[1], seen[2]
    dropped_B = images_BCHW.flatten(1).abs().amax(1) == 0
    assert torch.equal(dropped_B, embeddings_BLD.flatten(1).abs().amax(1) == 0), "both forms of the image go together"
    assert set(dropped_B.tolist()) == expected
    assert torch.equal(ids_BD[:, 0], batch(range(8)).fps_B - 1), "the ids stay"


def test_the_state_is_what_is_trained_and_nothing_else(make: Callable[..., FineTuning]) -> None:
    module = make()
    state = {name: p.clone() for name, p in module.state_dict().items()}
    assert state
    assert all("lora_" in name for name in state)
    module.load_state_dict({name: p + 1 for name, p in state.items()})
    assert all(torch.equal(p, state[name] + 1) for name, p in module.trained_parameters().items())


@pytest.mark.parametrize("fault", ["missing", "superfluous", "shape"])
def test_a_state_that_does_not_fit_is_refused_whole(make: Callable[..., FineTuning], fault: str) -> None:
    module = make()
    before = {name: p.clone() for name, p in module.state_dict().items()}
    wrong = {name: p + 1 for name, p in before.items()}
    last = list(wrong)[-1]
    if fault == "missing":
        del wrong[last]
    elif fault == "superfluous":
        wrong["more.lora_A.default.weight"] = torch.zeros(1)
    else:
        wrong[last] = wrong[last].flatten()
    with pytest.raises(ModelError, match="differs in 1 weights, first"):
        module.load_state_dict(wrong)
    assert all(torch.equal(p, before[name]) for name, p in module.state_dict().items())
