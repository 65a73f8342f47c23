"""The device and the precision that a run takes, by what torch says of the machine."""

from __future__ import annotations

import pytest
import torch

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.hardware import choose_precision, training_device


@pytest.mark.parametrize(("wanted", "why"), [("cpu", "trainer.device is cpu"), ("auto", "torch sees no CUDA device")])
def test_fp16_is_refused_where_there_is_no_gpu(wanted: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"16-mixed needs a GPU, and {why}"):
        training_device(wanted, "16-mixed")
    assert training_device(wanted, "bf16-mixed") == "cpu"


@pytest.mark.parametrize(("major", "precision"), [(7, "16-mixed"), (8, "bf16-mixed")])
def test_a_card_without_bf16_takes_fp16_though_torch_would_emulate_it(
    major: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = type("Properties", (), {"major": major})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: told)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert choose_precision("auto", "cuda") == precision
    assert choose_precision("auto", "cpu") == "32"
