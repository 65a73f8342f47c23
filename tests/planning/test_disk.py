"""The bytes that a fit is said to write, beside those that its run folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.commands import fit
from svdtrain.planning.disk import SMALL, bytes_of_fit
from svdtrain.planning.training_step import blank_family
from svdtrain.training.build import build_module
from tests.planning.settings import settings_of
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_config, save_tiny_dataset

LOOKS = ["validation.sample_inputs=1", "validation.sample_every=2"]
OFTEN = ["trainer.max_steps=4", "trainer.save_every=1"]


@pytest.mark.parametrize(
    "words",
    [
        LOOKS,
        [*LOOKS, *OFTEN, "trainer.keep_checkpoints=2", "adapter.rank=64", "optimizer.ema_decay=0.9"],
        [*OFTEN, "trainer.keep_adapters=true", "adapter.rank=64"],
        [*OFTEN, "adapter.kind=full"],
    ],
)
def test_a_run_folder_holds_no_more_and_not_much_less(words: list[str], tmp_path: Path) -> None:
    """Less by the checkpoint that is being written, and by the best one where that is a newest one, too."""
    model, dataset = save_tiny_svd(tmp_path / "model"), save_tiny_dataset(tmp_path / "dataset")
    config = fit_config(model, dataset, *words, f"run_dir={tmp_path}/run")
    fit.run(config, [])
    held = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    for file in model.rglob("*.safetensors"):
        file.unlink()
    said = bytes_of_fit(config, blank_family(config, build_module))
    assert held < said < 2.2 * held + SMALL


def test_every_weight_counts_where_all_are_trained(tmp_path: Path) -> None:
    """Weights and two moments for each of 2 + 1 + 1 checkpoints, weights alone for the result, old and new."""
    words = ["adapter.kind=full", "trainer.keep_checkpoints=2", *OFTEN, "validation.sample_inputs=0"]
    full, averaged = (
        bytes_of_fit(config, blank_family(config, build_module))
        for more in ([], ["optimizer.ema_decay=0.9"])
        for config in (settings_of("svd", tmp_path, *words, *more),)
    )
    denoiser = (full - SMALL) / (4 * 3 + 2)
    assert averaged - full == 4 * denoiser
    assert denoiser == pytest.approx(4 * 1.2e6, rel=0.5)
