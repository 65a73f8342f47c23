"""Every family against its stock pipeline and against formulas in float64: one table of cases, tiny random models."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.protocol import ModelFamily
from svdtrain.foundation.seeding import Draws
from svdtrain.types import NoisyLatents
from tests.families.cases import CASES, SEED, Case, Schedule, batch_of, to_network

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SETTINGS = {"return_dict", "attention_kwargs", "cross_attention_kwargs", "added_cond_kwargs"}


class PipelineDraws(Draws):
    """The pipeline's own noise on its picture: the first numbers of a generator of its seed."""

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(SEED))
        return noise.expand(len(self.keys_B), *shape)


def first_call(denoiser: nn.Module, act: Callable[[], object]) -> dict[str, Any]:
    """The arguments of the denoiser's first call, by name."""
    seen: list[dict[str, Any]] = []
    signature = inspect.signature(denoiser.forward)

    def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told = signature.bind(*args, **kwargs).arguments
        seen.append({name: value for name, value in told.items() if value is not None and name not in SETTINGS})

    hook = denoiser.register_forward_pre_hook(catch, with_kwargs=True)
    act()
    hook.remove()
    return seen[0]


@each
def test_the_denoiser_is_told_what_the_pipeline_tells_it(case: Case, family: ModelFamily) -> None:
    """T6, T7: all arguments of the call, for a clip whose conditions are dropped and for one that keeps them."""
    request = case.request(family)
    theirs = first_call(family.denoiser, lambda: family.sample([request]))
    if hasattr(family, "condition_noise"):
        level = request.noise_aug_strength if case.schedule is None else 0.0
        family.condition_noise = lambda uniform_B: torch.full_like(uniform_B, level).float()  # type: ignore[attr-defined]
    batch = batch_of(case, request.prompt, request.prompt)
    conditions = family.encode_conditions(batch, family.encode_clips(batch), PipelineDraws(0, (0, 1)))
    conditions = conditions.dropped(torch.tensor([True, False]))
    channels = 2 if case.time_first else 1
    sample = next(iter(theirs.values()))
    noisy_BTCHW = to_network(case, sample.narrow(channels, 0, case.input_channels))
    assert noisy_BTCHW.shape[1] == case.latent_frames
    start = torch.as_tensor(theirs["timestep"]).expand(2)
    noisy = NoisyLatents(noisy_BTCHW, start, noisy_BTCHW, torch.ones(2), torch.ones(2))
    ours = first_call(family.denoiser, lambda: family.denoise(noisy, conditions))
    assert ours.keys() == theirs.keys()
    for name, told in theirs.items():
        pairs = zip(*(value if isinstance(value, tuple) else (value,) for value in (ours[name], told)), strict=True)
        for mine, stock in pairs:
            mine, stock = torch.as_tensor(mine), torch.as_tensor(stock)
            assert mine.shape == stock.shape or name == "timestep", name
            assert float((mine.double() - stock.double()).abs().max()) <= 2e-6, name


@each
def test_the_sampler_starts_where_training_ends(case: Case, family: ModelFamily) -> None:
    """Nothing but noise at the last level: exactly where the schedule has no signal left, nearly where it has some."""
    z, noise = torch.full((1, 2, 4, 4, 4), 2.0), torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    last = family.objective.levels(torch.tensor([1 - 1e-9], dtype=torch.float64))
    noisy = family.objective.corrupt(z, noise, last)
    if case.schedule and case.schedule.zero_terminal:
        assert math.isinf(float(last))
        assert torch.equal(noisy.input_BTCHW, noise)
        assert torch.equal(noisy.target_BTCHW, -z)
        assert int(noisy.timestep_B) == 999
    else:
        assert float((noisy.input_BTCHW - noise).abs().max()) < 0.2


def reference_shares(schedule: Schedule) -> np.ndarray:
    """abar of 1000 steps in float64, from the papers' formulas."""
    if schedule.betas == "squaredcos_cap_v2":
        curve = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    elif schedule.betas == "linear":
        betas = np.linspace(0.00085, 0.012, 1000)
    else:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    shares = np.cumprod(1 - betas)
    shares = shares / (schedule.shift + (1 - schedule.shift) * shares)
    if schedule.zero_terminal:
        roots = np.sqrt(shares)
        shares = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return shares


@each
def test_the_loss_equals_an_independent_formula_in_float64(case: Case, family: ModelFamily) -> None:
    family.denoiser.double()
    batch = batch_of(case, "a cat", "two dogs", "a cat")
    encoded = family.encode_clips(batch)
    posterior = family.posterior(encoded)
    scale = family.vae.config.scaling_factor  # type: ignore[attr-defined]
    z = posterior.mode().double()
    assert torch.equal(z[:, -encoded.mean_BTCHW.shape[1] :], (encoded.mean_BTCHW * scale).double())
    noise = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma_B = family.objective.levels(torch.tensor([0.2, 0.7, 0.9999], dtype=torch.float64))
    noisy = family.objective.corrupt(z, noise, sigma_B)
    conditions = family.encode_conditions(batch, encoded, Draws(0, (0, 1, 2)))
    answers: list[Tensor] = []
    hook = family.denoiser.register_forward_hook(lambda _m, _i, answer: answers.append(answer[0]))
    with torch.no_grad():
        told = first_call(
            family.denoiser,
            lambda: answers.append(mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW)),
        )
    hook.remove()
    fed = to_network(case, next(iter(told.values())).narrow(2 if case.time_first else 1, 0, 4))
    network, loss = to_network(case, answers[0]), answers[1]
    for clip, step in enumerate((200, 700, 999)):
        if case.schedule is None:
            sigma = float(sigma_B[clip])
            signal, spread = 1 / math.sqrt(sigma**2 + 1), sigma / math.sqrt(sigma**2 + 1)
            assert float(told["timestep"][clip]) == pytest.approx(math.log(sigma) / 4, rel=1e-6)
        else:
            share = reference_shares(case.schedule)[step]
            signal, spread = math.sqrt(share), math.sqrt(1 - share)
            assert int(told["timestep"][clip]) == step
        target = (
            noise[clip]
            if case.schedule and case.schedule.target == "epsilon"
            else signal * noise[clip] - spread * z[clip]
        )
        assert float((fed[clip] - (signal * z[clip] + spread * noise[clip])).abs().max()) < 1e-6
        assert float(loss[clip]) == pytest.approx(float((network[clip] - target).square().mean()), rel=1e-6)


def one(bundle: Any, index: int) -> Any:  # noqa: ANN401
    """A dataclass of a batch, of one clip alone."""
    values = {f.name: getattr(bundle, f.name) for f in fields(bundle)}
    kept = {
        name: value if name.endswith("_LD") and "BLD" not in name else value[index : index + 1]
        for name, value in values.items()
    }
    return replace(bundle, **kept)


@each
def test_clips_of_a_batch_do_not_see_each_other(case: Case, family: ModelFamily) -> None:
    """T9, in float64; each clip's dropout is its own, too."""
    family.denoiser.double()
    batch = batch_of(case, "a cat", "two dogs", "a bird")
    encoded = family.encode_clips(batch)
    draws = Draws(0, (0, 1, 2))
    drop_B = torch.tensor([False, True, False])
    conditions = family.encode_conditions(batch, encoded, draws).dropped(drop_B).without_image(~drop_B)
    z = family.posterior(encoded).mode().double()
    noisy = family.objective.corrupt(z, torch.ones_like(z), family.objective.levels(draws.uniform("level")))
    with torch.no_grad():
        together = family.denoise(noisy, conditions)
        apart = [family.denoise(one(noisy, clip), one(conditions, clip)) for clip in range(3)]
    assert float((together - torch.cat(apart)).abs().max()) < 1e-12


@each
def test_an_adapter_starts_as_the_identity(case: Case, family: ModelFamily) -> None:
    """T8: frames of the stock pipeline are the same bits before and after."""
    request = case.request(family)
    (before,) = family.sample([request])
    patterns = family.spec.targets["attention_and_feed_forward"]
    halves = {half: HalfSpec(pattern, 2, 2.0, 1e-4) for half, pattern in patterns.items()}
    found = inject(family.denoiser, AdapterSpec(halves), seed=0)
    assert set(found.values()) == set(patterns)
    (after,) = family.sample([request])
    assert np.array_equal(before, after)


@each
def test_a_still_is_a_clip_of_one_frame(case: Case, family: ModelFamily) -> None:
    batch = batch_of(case, "a cat", frames=1)
    encoded = family.encode_clips(batch)
    z = family.posterior(encoded).mode()
    noisy = family.objective.corrupt(z, torch.ones_like(z), torch.tensor([1.0]))
    conditions = family.encode_conditions(batch, encoded, Draws(0, (0,)))
    with torch.no_grad():
        assert family.denoise(noisy, conditions).shape == z.shape
