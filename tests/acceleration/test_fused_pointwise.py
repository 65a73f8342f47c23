"""Fused pointwise passes: the formulas in float64, what the compiler makes of them, and torch's own kernels where it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from svdtrain.acceleration import fused_pointwise as fused
from svdtrain.acceleration.compiling import CACHE, CompileClock
from svdtrain.acceleration.frozen import EAGER, Blend, GatedProduct, Normed, Pointwise
from svdtrain.acceleration.levers import accelerate
from svdtrain.acceleration.recompute import recompute
from svdtrain.families.svd import SPEC
from tests.acceleration.test_levers import adapted, answer, distance

ROOT = Path(__file__).parents[2]
PLAIN = Pointwise(
    fused.normed, fused.norm_gradient, fused.product, fused.product_gradient, fused.blended, fused.blend_gradient
)
"""The formulas, not compiled."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An operation by a Pointwise, and torch's own of it."""

    name: str
    inputs: tuple[Tensor, ...]
    """Whose gradients are wanted."""
    ours: Callable[..., Any]
    theirs: Callable[..., Tensor]
    frozen: tuple[Tensor, ...] = ()


def _normed(silu: bool, input_NC: Tensor, weight: Tensor, bias: Tensor, by: Pointwise) -> Any:  # noqa: ANN401
    return Normed.apply(input_NC, weight, bias, 4, 1e-5, silu, by)


def _their_norm(silu: bool, input_NC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    answer = functional.group_norm(input_NC, 4, weight, bias, 1e-5)
    return functional.silu(answer) if silu else answer


def _their_product(both: Tensor) -> Tensor:
    value, gate = both.chunk(2, dim=-1)
    return value * functional.gelu(gate)


AFFINE = (1 + 0.1 * drawn(8, seed=1), drawn(8, seed=2))
CASES = (
    Case("norm", (3 + drawn(2, 8, 4, 6),), partial(_normed, False), partial(_their_norm, False), AFFINE),
    Case("norm, SiLU", (3 + drawn(2, 8, 3, 4, 6),), partial(_normed, True), partial(_their_norm, True), AFFINE),
    Case("GEGLU", (drawn(2, 5, 12),), GatedProduct.apply, _their_product),
    Case(
        "blend",
        (drawn(3, 7), drawn(3, 7, seed=3)),
        Blend.apply,
        lambda one, other, share, _: share * one + (1 - share) * other,
        tuple(torch.tensor([[[0.1], [0.5], [1.0]], [[0.9], [0.5], [0.0]]], dtype=torch.float64)),
    ),
)


def with_gradients(case: Case, run: Callable[..., Any], dtype: torch.dtype) -> list[Tensor]:
    inputs = [tensor.to(dtype).requires_grad_() for tensor in case.inputs]
    output = run(*inputs, *(tensor.to(dtype) for tensor in case.frozen))
    gradient = drawn(*output.shape, seed=9).to(dtype)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]


def largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert [(t.dtype, t.shape) for t in ours] == [(t.dtype, t.shape) for t in theirs]
    pairs = zip(ours, theirs, strict=True)
    return max(float((one.double() - other.double()).abs().max() / other.abs().max()) for one, other in pairs)


@pytest.mark.parametrize("by", [PLAIN, EAGER], ids=["formulas", "torch's kernels"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_formulas_are_torchs_own(case: Case, by: Pointwise) -> None:
    theirs = with_gradients(case, case.theirs, torch.float64)
    assert largest(with_gradients(case, partial_by(case, by), torch.float64), theirs) < 1e-12
    halves = with_gradients(case, partial_by(case, by), torch.bfloat16)
    assert largest(halves, [tensor.bfloat16() for tensor in theirs]) < 2e-2


def partial_by(case: Case, by: Pointwise) -> Callable[..., Any]:
    return lambda *args: case.ours(*args, by)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler on a CPU")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_compiler_makes_of_them(
    case: Case, dtype: torch.dtype, bound: float,
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(CACHE, str(tmp_path_factory.getbasetemp() / "compiled"))
    fused._compiled.cache_clear()
    kernels = fused.FusedPointwise()
    with CompileClock() as clock:
        ours = with_gradients(case, partial_by(case, kernels.pointwise), dtype)
    assert not kernels.failed
    assert clock.seconds > 0
    assert largest(ours, with_gradients(case, partial_by(case, PLAIN), dtype)) <= bound


@pytest.mark.parametrize("rung", ["none", "nested"])
def test_every_place_is_found_and_computes_the_same(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()

    def counted(name: str, *args: Any) -> Any:  # noqa: ANN401
        calls[name] += 1
        return getattr(PLAIN, name)(*args)

    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    monkeypatch.setattr(fused, "LEAST", 0)
    denoiser = adapted("svd", torch.float64)
    before = answer(denoiser, "svd")
    accelerated = accelerate(denoiser, ["frozen_operations", "blends", "fused_pointwise"])
    choices: list[Any] = [m.__dict__["forward"].keywords["choose"] for m in denoiser.modules() if is_choosing(m)]
    choices[0].__self__.pointwise = Pointwise(**{f.name: partial(counted, f.name) for f in fields(Pointwise)})
    patches = recompute(denoiser, rung, SPEC.repeated_blocks)
    assert distance(answer(denoiser, "svd"), before) < 1e-12
    assert all(calls[f.name] for f in fields(Pointwise)), calls
    patches.close()
    accelerated.close()
    assert not any("forward" in vars(module) for module in denoiser.modules())


def is_choosing(module: nn.Module) -> bool:
    return "choose" in getattr(module.__dict__.get("forward"), "keywords", {})


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_that_is_computed_again_without_the_compiler_looks_the_same(dtype: torch.dtype, silu: bool) -> None:
    input_NC, weight, bias = (tensor.to(dtype) for tensor in (drawn(2, 8, 4, 6), *AFFINE))
    ours = fused.normed(input_NC, weight, bias, 4, 1e-5, silu)
    eager = fused._eager_normed(input_NC, weight, bias, 4, 1e-5, silu)
    assert [(t.dtype, t.shape) for t in ours] == [(t.dtype, t.shape) for t in eager]


def test_without_a_compiler_torchs_kernels_go_on_and_one_line_says_so(tmp_path: Path) -> None:
    """In a process of its own: torch looks for a compiler once."""
    code = """
import logging, torch
logging.basicConfig(format="%(message)s")
from diffusers.models.activations import GEGLU
from torch.utils.checkpoint import checkpoint
from svdtrain.acceleration import fused_pointwise as fused
from svdtrain.acceleration.levers import accelerate
fused.DEVICES, fused.LEAST = ("cpu",), 0
network = torch.nn.Sequential(torch.nn.GroupNorm(2, 4), GEGLU(6, 6), GEGLU(6, 6)).requires_grad_(False)
def answer():
    rows = torch.arange(48.0).view(2, 4, 6).requires_grad_()
    output = checkpoint(network, rows, use_reentrant=False)
    output.sum().backward()
    return output, rows.grad
before = answer()
accelerated = accelerate(network, ("frozen_operations", "fused_pointwise"))
for _ in range(2):
    torch.testing.assert_close(answer(), before)
accelerated.close()
"""
    environment = os.environ | {"CXX": str(tmp_path / "none"), CACHE: str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("speed.fused_pointwise: compiling failed (")
