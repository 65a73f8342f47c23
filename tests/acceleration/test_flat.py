"""One tensor for all that is trained: the same AdamW, clipping and gradients as parameter by parameter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from svdtrain.acceleration.flat import FlatParameters

RATES = {"fast": 1e-2, "slow": 1e-3}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).double()


def groups_of(layers: nn.Sequential) -> dict[str, list[nn.Parameter]]:
    return {"fast": list(layers[0].parameters()), "slow": list(layers[2].parameters())}


def backward(layers: nn.Sequential, step: int) -> None:
    drawn = torch.Generator().manual_seed(step)
    layers(torch.randn(4, 5, generator=drawn, dtype=torch.float64)).square().sum().backward()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_are_those_of_separate_parameters(accumulate: int) -> None:
    plain = network()
    flatted = copy.deepcopy(plain)
    flat = FlatParameters(groups_of(flatted))
    usual = torch.optim.AdamW([{"params": p, "lr": RATES[g]} for g, p in groups_of(plain).items()], weight_decay=0.1)
    ours = torch.optim.AdamW(
        [{"params": [p], "lr": RATES[g]} for g, p in flat.groups.items()], weight_decay=0.1, fused=True
    )
    for step in range(4):
        usual.zero_grad()
        flat.zero_gradients()
        for part in range(accumulate):
            backward(plain, 10 * step + part)
            backward(flatted, 10 * step + part)
        expected = nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        assert float(flat.gradients.norm()) == pytest.approx(float(expected), rel=1e-12)
        nn.utils.clip_grad_norm_(flat.groups.values(), 0.5)
        usual.step()
        ours.step()
    for (name, one), other in zip(plain.named_parameters(), flatted.parameters(), strict=True):
        assert (one - other).abs().max() < 1e-12, name


def test_names_shapes_and_values_stay_and_each_begins_aligned() -> None:
    plain = network()
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    flat = FlatParameters(groups_of(plain))
    assert {name: p.shape for name, p in plain.named_parameters()} == {name: p.shape for name, p in before.items()}
    assert all(torch.equal(p, before[name]) for name, p in plain.named_parameters())
    assert all(p.storage_offset() % 64 == 0 for p in plain.parameters())
    flat.values.data.zero_()
    assert not any(p.any() for p in plain.parameters())


def test_a_step_left_out_changes_neither_weights_nor_moments() -> None:
    plain = network()
    flat = FlatParameters(groups_of(plain))
    optimizer = torch.optim.AdamW(list(flat.groups.values()), fused=True)
    backward(plain, 0)
    optimizer.step()
    before = flat.values.clone(), copy.deepcopy(optimizer.state_dict()["state"])
    flat.zero_gradients()
    backward(plain, 1)
    flat.leave_out()
    optimizer.step()
    assert torch.equal(flat.values, before[0])
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1], rtol=0, atol=0)
    flat.zero_gradients()
    backward(plain, 1)
    optimizer.step()
    assert not torch.equal(flat.values, before[0])
