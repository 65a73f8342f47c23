"""On a CUDA device: levers, rungs, flat parameters and Lightning's training with them, in bf16."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from svdtrain.acceleration import fused_pointwise
from svdtrain.acceleration.attention import attention_kernels, kernel_at_work
from svdtrain.acceleration.compiling import CACHE, CompileClock
from svdtrain.acceleration.flat import FlatParameters
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.acceleration.recompute import RUNGS, recompute
from svdtrain.adapters.inject import adapter_parameters
from svdtrain.families.build import build_family
from svdtrain.families.svd import SPEC
from svdtrain.training import build
from svdtrain.training.callbacks.average import WeightAverage
from svdtrain.training.callbacks.guard import NumericGuard
from tests.acceleration.test_levers import adapted, distance
from tests.tiny_denoisers import DENOISERS
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_config
from tests.training.test_module import batch

pytestmark = pytest.mark.gpu


def on_gpu(denoiser: nn.Module, dtype: torch.dtype) -> nn.Module:
    """As it is trained: an fp32 adapter on a base in this precision."""
    trained = set(map(id, adapter_parameters(denoiser).values()))
    for tensor in (*denoiser.parameters(), *denoiser.buffers()):
        tensor.data = tensor.data.to("cuda", torch.float32 if id(tensor) in trained else dtype)
    return denoiser


def answer(denoiser: nn.Module, name: str, dtype: torch.dtype) -> list[Tensor]:
    """Output, and the gradients of all adapter weights."""

    def there(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(there, value))
        if isinstance(value, Tensor):
            return value.to("cuda", dtype if value.is_floating_point() else value.dtype)
        return value

    inputs = {key: there(value) for key, value in DENOISERS[name].inputs().items()}
    output = denoiser(**inputs, return_dict=False)[0].float()
    output.square().sum().backward()
    weights = list(adapter_parameters(denoiser).values())
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]
    for weight in weights:
        weight.grad = None
    return [output.detach(), *gradients]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", [name for name in DENOISERS if name != "motion_modules"])
def test_all_levers_together_change_no_result(
    name: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    denoiser = on_gpu(adapted(name, torch.float32), dtype)
    before = answer(denoiser, name, dtype)
    accelerated = accelerate(denoiser, LEVERS)
    with attention_kernels():
        assert distance(answer(denoiser, name, dtype), before) < bound
    accelerated.close()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_fused_passes_change_no_result_on_any_rung(
    dtype: torch.dtype, bound: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However small the tensors."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(fused_pointwise, "LEAST", 0)
    denoiser = on_gpu(adapted("svd", torch.float32), dtype)
    accelerated = accelerate(denoiser, set(LEVERS) - {"fused_pointwise"})
    before = answer(denoiser, "svd", dtype)
    accelerated.close()
    accelerate(denoiser, LEVERS)
    with CompileClock() as clock:
        for rung in RUNGS:
            patches = recompute(denoiser, rung, SPEC.repeated_blocks)
            assert distance(answer(denoiser, "svd", dtype), before) < bound, rung
            patches.close()
    assert "compiling failed" not in caplog.text
    assert clock.seconds > 0


def test_every_rung_gives_the_gradients_of_none() -> None:
    expected: list[Tensor] = []
    for rung in RUNGS:
        denoiser = on_gpu(adapted("svd", torch.float32), torch.bfloat16)
        accelerate(denoiser, LEVERS)
        recompute(denoiser, rung, SPEC.repeated_blocks)
        found = answer(denoiser, "svd", torch.bfloat16)
        expected = expected or found
        assert distance(found, expected) < 1e-3, rung


def test_flat_parameters_take_a_fused_step() -> None:
    denoiser = on_gpu(adapted("svd", torch.float32), torch.bfloat16)
    flat = FlatParameters({"all": [p for p in denoiser.parameters() if p.requires_grad]})
    before = flat.values.detach().clone()
    answer(denoiser, "svd", torch.bfloat16)
    flat.zero_gradients()
    flat.gradients.normal_()
    torch.optim.AdamW(list(flat.groups.values()), lr=1e-3, fused=True).step()
    assert not torch.equal(flat.values, before)


def test_a_kernel_is_known_by_name() -> None:
    assert kernel_at_work(64, 64, torch.bfloat16, "cuda") in ("cudnn", "flash", "efficient")


class FlatViews(Callback):
    """As long as there is training, every trained parameter is part of the flat one. (Then Lightning moves all to the CPU.)"""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """After the last step."""
        module: Any = pl_module
        values, trained = module.flat.values, module.trained_parameters().values()
        assert values.is_cuda
        start, end = values.data_ptr(), values.data_ptr() + values.nbytes
        assert all(start <= p.data_ptr() < end and p.dtype == torch.float32 for p in trained)


@pytest.mark.parametrize(
    "words", [(), ("trainer.accumulate=2", "optimizer.ema_decay=0.9"), ("adapter=full",), ("memory=offload",)]
)
def test_lightning_trains_with_them(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The same clips and draws again and again: their loss falls, and the flat views hold."""
    model = save_tiny_svd(tmp_path / "model")
    config = fit_config(
        model, tmp_path, "trainer.max_steps=30", "optimizer.learning_rate=1e-2", "trainer.device=cuda", *words
    )
    module = build.build_module(config, build_family(config.model))
    clips = DataLoader([range(2)] * 60, batch_size=None, collate_fn=batch)  # pyright: ignore[reportArgumentType]
    looks: list[Callback] = [NumericGuard("raise", 1), WeightAverage(config.optimizer.ema_decay), FlatViews()]
    build.build_trainer(config, [], looks).fit(module, clips)
    assert math.isfinite(module.last_loss)
    early, late = ([loss for _, loss in part] for part in (module.losses[:20], module.losses[-20:]))
    assert sum(late) < sum(early)
