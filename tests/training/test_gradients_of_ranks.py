"""Gradients of several processes, reduced, against one process with the same global batch; and what went over the wire."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file, save_file

from svdtrain.families.build import build_family
from svdtrain.training import build
from svdtrain.training.module import FineTuning
from svdtrain.training.ranks import joined
from svdtrain.training.strategy import FlatReduction, sent_per_step
from tests.tiny_runs import fit_config

BATCH = 4
STEPS = 1


class Keep(Callback):
    """What the optimizer is given, and what was reduced until then."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.kept: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: Any, module: FineTuning, *_: Any) -> None:  # noqa: ANN401
        self.kept[f"gradients {trainer.global_step}"] = module.flat.gradients.clone()
        strategy = trainer.strategy
        reduced = strategy.bytes_reduced if isinstance(strategy, FlatReduction) else 0
        self.kept["bytes"] = torch.tensor([reduced, module.flat.gradients.nbytes])

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        save_file(self.kept, self.file)


def rank(number: int, ranks: int, model: Path, dataset: Path, folder: Path, accumulate: int) -> None:
    """A share of the global batch."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks)}
    os.environ |= {"SVDTRAIN_BEATS": str(folder)}
    words = [f"data.batch_size={BATCH // ranks // accumulate}", f"trainer.devices={ranks}"]
    words += [f"trainer.max_steps={STEPS}", f"trainer.accumulate={accumulate}"]
    config = fit_config(model, dataset, *words)
    with joined("cpu"):
        module = build.build_module(config, build_family(config.model))
        module.denoiser_dtype = torch.float64  # so that what differs is the sum over ranks alone, which is in fp32
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():  # B far from zero, so that every weight of the adapter has a gradient
            for parameter in module.trained_parameters().values():
                parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.1)
        keep = Keep(folder / f"rank-{number}.safetensors")
        build.build_trainer(config, [], [keep]).fit(module, datamodule=build.build_data(config))


def gradients_of(
    ranks: int, model: Path, dataset: Path, folder: Path, accumulate: int = 1
) -> list[dict[str, torch.Tensor]]:
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    given = [(number, ranks, model, dataset, folder, accumulate) for number in range(ranks)]
    processes = [context.Process(target=rank, args=row) for row in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
        assert process.exitcode == 0
    return [load_file(folder / f"rank-{number}.safetensors") for number in range(ranks)]


@pytest.mark.parametrize(("ranks", "accumulate"), [(4, 1), (2, 2)])
def test_gradients_are_those_of_one_process(
    model: Path, dataset: Path, tmp_path: Path, ranks: int, accumulate: int
) -> None:
    """The same global batch, in parts of the same size: a convolution's rounding differs with the size of its batch."""
    [alone] = gradients_of(1, model, dataset, tmp_path / "alone", ranks * accumulate)
    first, *others = gradients_of(ranks, model, dataset, tmp_path / "ranks", accumulate)
    expected = alone["gradients 0"]
    assert float((first["gradients 0"] - expected).norm() / expected.norm()) < 1e-6
    for other in others:
        assert all(torch.equal(other[name], first[name]) for name in first), "ranks have the same bits"
    reduced, bytes_of_gradients = first["bytes"].tolist()
    assert reduced == STEPS * bytes_of_gradients, "once a step, however many batches"


def test_bytes_on_the_wire_are_a_rings() -> None:
    assert [sent_per_step(1000, ranks) for ranks in (1, 2, 4, 8)] == [0, 1000, 1500, 1750]
