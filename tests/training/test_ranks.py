"""Two processes over gloo: the same training as one process with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from svdtrain.commands import fit
from svdtrain.reporting.run_files import read_run
from tests.tiny_runs import fit_config, fit_words

ADAPTER = Path("adapter/adapter_model.safetensors")
WORDS = [
    "trainer.accumulate=2",
    "trainer.save_every=1",
    "optimizer.ema_decay=0.9",
    "optimizer.learning_rate=1e-3",
    "optimizer.warmup_steps=1",
    "validation.every=5",
    "validation.sample_inputs=1",
]
PARTS = [(1, 2), (2, 4), (1, 6)]
"""How many ranks train to which step."""


def shape(ranks: int, last: int, run: Path) -> list[str]:
    return [
        *WORDS,
        f"data.batch_size={2 // ranks}",
        f"trainer.devices={ranks}",
        f"trainer.max_steps={last}",
        f"run_dir={run}",
    ]


def losses(run: Path) -> dict[int, float]:
    """step -> loss of all its parts."""
    return dict(read_run(run).curves["loss"])


def assert_close(one: Path, other: Path) -> None:
    """fp32 sums of another order, which Adam amplifies where a gradient is nearly zero: 1.2e-4 of the norm was measured."""
    a, b = load_file(one / ADAPTER), load_file(other / ADAPTER)
    assert a.keys() == b.keys()
    assert sum(float((a[n] - b[n]).square().sum()) for n in a) < 1e-6 * sum(
        float(a[n].square().sum()) for n in a if "lora_B" in n
    )


def test_any_number_of_ranks_trains_what_one_does(model: Path, dataset: Path, tmp_path: Path) -> None:
    """A step's loss is the mean over all ranks, and moves by more than this with any other clip or noise."""
    whole, elastic = tmp_path / "whole", tmp_path / "elastic"
    assert fit.run(fit_config(model, dataset, *shape(1, 6, whole)), []) == 0
    for ranks, last in PARTS:
        words = shape(ranks, last, elastic)
        if ranks == 1:
            assert fit.run(fit_config(model, dataset, *words), []) == 0
            continue
        command = [sys.executable, "-m", "svdtrain", "fit", *fit_words(model, dataset, *words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder") == done.stdout.count("held-out loss is") == 1, "one rank speaks"
        assert (elastic / "before_after.mp4").stat().st_size
    assert list(losses(elastic)) == list(range(1, 7))
    assert losses(elastic) == pytest.approx(losses(whole), abs=2e-6)
    assert_close(whole, elastic)
