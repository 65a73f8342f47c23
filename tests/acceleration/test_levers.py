"""Each lever against the plain network: equal to the bit, or in float64 to rounding; and nothing of it left when it is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from svdtrain.acceleration import attention
from svdtrain.acceleration.flat import FlatParameters
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.adapters.inject import adapter_parameters, inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.planning.costs import Costs
from svdtrain.planning.memory import LiveStorages
from tests.tiny_denoisers import DENOISERS, make, output_of

FEED_FORWARD = r".*\.ff(_in)?\.net\.(0\.proj|2)"


@dataclass(frozen=True)
class Case:
    """A lever, how near it has to come, and on which denoisers it does something."""

    lever: str
    float64: float
    float32: float
    at_work: tuple[str, ...]


EXACT = 0.0
CASES = (
    Case("one_token_attention", 1e-12, 1e-5, ("svd", "unet3d", "i2vgen_xl", "animatediff")),
    Case("frozen_operations", EXACT, EXACT, tuple(DENOISERS)),
    Case("blends", 1e-12, 1e-5, ("svd",)),
    Case("fused_pointwise", EXACT, EXACT, ("svd", "unet3d", "i2vgen_xl", "animatediff")),
    Case("fused_lora", 1e-12, 1e-5, tuple(DENOISERS)),
    Case("self_attention", 1e-12, 1e-5, ("svd", "unet3d", "i2vgen_xl", "animatediff")),
    Case("conv3d_as_conv2d", 1e-12, 1e-5, ("svd", "unet3d", "i2vgen_xl")),
    Case("attention_in_parts", 1e-12, 1e-5, tuple(DENOISERS)),
)


def adapted(name: str, dtype: torch.dtype) -> nn.Module:
    """With an adapter far from zero on attention and feed-forwards."""
    denoiser, known = make(name), DENOISERS[name]
    halves = {
        half: HalfSpec(f"(?:{pattern})|{FEED_FORWARD}" if half == "spatial" else pattern, 4, 8.0, 1e-4)
        for half, pattern in (("spatial", known.spatial), ("temporal", known.temporal))
        if pattern
    }
    inject(denoiser, AdapterSpec(halves), seed=0)
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_parameters(denoiser).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=drawn))
    return denoiser.to(dtype)


def answer(denoiser: nn.Module, name: str) -> list[Tensor]:
    """Output, and the gradients of all adapter weights."""
    output = output_of(denoiser, name)
    output.square().sum().backward()
    weights = adapter_parameters(denoiser).values()
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    for weight in weights:
        weight.grad = None
    return [output.detach(), *gradients]


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, of output and of all gradients, as a share of each one's size."""

    def gap(these: list[Tensor], those: list[Tensor]) -> float:
        flat, other = (torch.cat([one.flatten() for one in tensors]) for tensors in (these, those))
        return float((flat - other).abs().max() / other.abs().max())

    return max(gap(ours[:1], theirs[:1]), gap(ours[1:], theirs[1:]))


@pytest.mark.parametrize("name", [name for name in DENOISERS if name != "motion_modules"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.lever)
def test_a_lever_changes_no_result_and_comes_off(case: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_ROWS", 3)  # fewer than any of these networks has
    for dtype, bound in ((torch.float64, case.float64), (torch.float32, case.float32)):
        denoiser = adapted(name, dtype)
        before, names = answer(denoiser, name), list(denoiser.state_dict())
        accelerated = accelerate(denoiser, [case.lever])
        assert bool(accelerated.left_out) == (name not in case.at_work)
        during = answer(denoiser, name)
        assert list(denoiser.state_dict()) == names
        assert distance(during, before) <= bound
        accelerated.close()
        assert not any("forward" in vars(module) for module in denoiser.modules())
        assert distance(answer(denoiser, name), before) == 0


@pytest.mark.parametrize(("base", "bound"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05)], ids=["fp64", "bf16"])
def test_what_is_learnt_is_added_where_a_gradient_is_unless_it_is_watched(base: torch.dtype, bound: float) -> None:
    _, *once = answer(adapted("svd", torch.float64), "svd")
    denoiser = adapted("svd", torch.float64)
    weights: list[Any] = list(adapter_parameters(denoiser).values())
    if base != torch.float64:
        denoiser.to(base)
        for weight in weights:
            weight.data = weight.data.float()
    accelerate(denoiser, set(LEVERS) - {"fused_pointwise"})
    flat = FlatParameters({"all": weights})
    one = torch.ones(1)
    for times in (1, 2):
        output_of(denoiser, "svd").double().square().sum().backward()
        assert distance([one, *(gradient for _, gradient in flat._views)], [one, *(times * g for g in once)]) <= bound
    before = [gradient.clone() for _, gradient in flat._views]
    for weight in weights[::3]:
        weight.register_hook(torch.zeros_like)
    seen: list[Any] = []
    for weight in weights[1::3]:
        weight.register_post_accumulate_grad_hook(seen.append)
    for weight in weights[2::3]:
        weight.requires_grad_(False)
    output_of(denoiser, "svd").double().square().sum().backward()
    for (weight, gradient), earlier in zip(flat._views, before, strict=True):
        dead = not earlier.any()  # queries and keys over one token
        added = any(weight is one for one in weights[1::3])
        assert weight.grad is gradient
        assert torch.equal(gradient, earlier) == (dead or not added)
        assert any(weight is one for one in seen) == (added and not dead)


def _doubled(_: nn.Module, given: Any) -> Any:  # noqa: ANN401
    return (2 * given[0],)


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "hook": lambda layer: layer.register_forward_hook(lambda _, __, out: _doubled(_, [out])[0]),
    "hook before": lambda layer: layer.register_forward_pre_hook(_doubled),
    "hook behind": lambda layer: layer.register_full_backward_pre_hook(_doubled),
    "trained": lambda layer: layer.requires_grad_(),
}


@pytest.mark.parametrize(
    ("change", "adapter"),
    [("hook", True), ("hook before", True), ("hook before", False), ("hook behind", True), ("trained", False)],
)
def test_what_is_on_a_projection_stays_at_work(change: str, adapter: bool) -> None:
    found: list[list[Tensor]] = []
    for levers in (set[str](), set(LEVERS) - {"fused_pointwise"}):
        denoiser = adapted("svd", torch.float64) if adapter else make("svd").double().requires_grad_(False)
        accelerate(denoiser, levers)
        keys = [m for name, m in denoiser.named_modules() if name.endswith("attn1.to_k")]
        for module in keys:
            CHANGES[change](module)
        for module in (m for name, m in denoiser.named_modules() if name.endswith(("attn1", "attn2"))):
            module.rescale_output_factor = 2.0  # type: ignore[assignment]
        output = output_of(denoiser, "svd")
        if output.requires_grad:
            output.square().sum().backward()
        trained = [p for p in denoiser.parameters() if p.requires_grad]
        found.append([output.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad for p in trained)])
    assert distance([*found[1], found[1][0]], [*found[0], found[0][0]]) <= 1e-12


@pytest.mark.parametrize("half", ["spatial", "temporal"])
def test_with_half_of_it_adapted_no_more_is_kept(half: str) -> None:
    kept: list[int] = []
    for levers in (set[str](), {"self_attention"}):
        denoiser = make("svd").requires_grad_(False)
        inject(denoiser, AdapterSpec({half: HalfSpec(getattr(DENOISERS["svd"], half), 4, 8.0, 1e-4)}), seed=0)  # type: ignore[dict-item]
        accelerate(denoiser, {"fused_lora", *levers})
        held: dict[int, Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, held=held: held.setdefault(tensor.untyped_storage().data_ptr(), tensor),
            lambda tensor: tensor,
        ):
            assert output_of(denoiser, "svd").requires_grad
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in held.values()))
    assert kept[1] <= kept[0]


HIDDEN = torch.linspace(-1, 1, 160, dtype=torch.float64).sin().view(2, 5, 16)
OF_ANOTHER_MAKE: dict[str, tuple[dict[str, Any], Tensor, dict[str, Any]]] = {
    "the usual": ({}, HIDDEN, {}),
    "a factor": ({"rescale_output_factor": 2.0}, HIDDEN, {}),
    "a residual": ({"residual_connection": True}, HIDDEN, {}),
    "a group norm": ({"norm_num_groups": 2}, HIDDEN, {}),
    "normed queries": ({"qk_norm": "layer_norm"}, HIDDEN, {}),
    "a context": ({"cross_attention_dim": 5}, HIDDEN, {"encoder_hidden_states": HIDDEN.transpose(1, 2)[:, :7]}),
    "a context, for once": ({}, HIDDEN, {"encoder_hidden_states": HIDDEN[:, :3]}),
    "a mask": ({}, HIDDEN, {"attention_mask": torch.tensor([0.0, 0, -9, 0, -9], dtype=torch.float64).expand(2, 1, 5)}),
    "a picture": ({}, HIDDEN.transpose(1, 2)[..., :4].unflatten(-1, (2, 2)), {}),
}


@pytest.mark.parametrize("name", OF_ANOTHER_MAKE)
def test_an_attention_of_another_make_stays_what_it_is(name: str) -> None:
    options, hidden, given = OF_ANOTHER_MAKE[name]
    torch.manual_seed(0)
    module = Attention(16, heads=2, dim_head=8, **options).double().requires_grad_(False)
    before = module(hidden, **given)
    accelerate(nn.ModuleList([module]), {"self_attention"})
    assert distance([module(hidden, **given)] * 2, [before] * 2) <= 1e-12


def _add_another(layer: Any) -> None:  # noqa: ANN401
    layer.update_layer("another", 2, lora_alpha=2, config=LoraConfig(r=2, lora_alpha=2, init_lora_weights=False))
    layer.double()
    layer.set_adapter([*layer.active_adapters, "another"])


LATER: dict[str, Callable[[Any], Any]] = {
    "disabled": lambda layer: layer.enable_adapters(False),
    "merged": lambda layer: layer.merge(),
    "two": _add_another,
}


@pytest.mark.parametrize("change", LATER)
def test_adapters_that_change_later_are_what_they_are(change: str) -> None:
    found: list[Tensor] = []
    for levers in (set[str](), set(LEVERS) - {"fused_pointwise"}):
        denoiser = adapted("svd", torch.float64)
        accelerate(denoiser, levers)
        torch.manual_seed(0)
        for layer in (module for module in denoiser.modules() if isinstance(module, LoraLayer)):
            LATER[change](layer)
        found.append(output_of(denoiser, "svd").detach())
    assert distance(found[1:] * 2, found[:1] * 2) <= 1e-12


class _Nothing:
    def __call__(self, _attention: Attention, hidden_states: Tensor, **_: Any) -> Tensor:  # noqa: ANN401
        return torch.zeros_like(hidden_states)


def test_a_processor_of_ones_own_is_asked() -> None:
    module = Attention(16, heads=2, dim_head=8).double().requires_grad_(False)
    accelerate(nn.ModuleList([module]), {"self_attention"})
    module.set_processor(_Nothing())  # type: ignore[arg-type]
    assert not module(HIDDEN).any()


@pytest.mark.parametrize("adapter", [True, False])
def test_under_autocast_projections_go_by_themselves(adapter: bool) -> None:
    found: list[list[Tensor]] = []
    for levers in (set[str](), {"fused_lora", "self_attention"}):
        denoiser: Any = adapted("svd", torch.float32) if adapter else make("svd").requires_grad_(False)
        accelerate(denoiser, levers)
        denoiser.conv_in.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = output_of(denoiser, "svd")
        output.float().square().sum().backward()
        found.append([output.detach().float(), denoiser.conv_in.weight.grad])
    assert distance(found[1], found[0]) <= 0.02


@pytest.mark.parametrize("lever", ["one_token_attention", "blends", "fused_lora", "self_attention"])
def test_a_step_is_fewer_operations_with(lever: str) -> None:
    calls: list[int] = []
    for levers in (set(LEVERS) - {"fused_pointwise"}, set(LEVERS) - {"fused_pointwise", lever}):
        denoiser, costs = adapted("svd", torch.float32), Costs()
        accelerate(denoiser, levers)
        with LiveStorages(costs):
            answer(denoiser, "svd")
        calls.append(costs.calls)
    assert calls[0] < calls[1]


def test_every_lever_has_a_case() -> None:
    assert {case.lever for case in CASES} == set(LEVERS)
