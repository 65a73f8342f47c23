"""Sample videos are looks at a run, and not worth its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.commands import fit
from svdtrain.families.loaded import LoadedModel
from svdtrain.reporting.run_record import RunRecord
from tests.tiny_runs import fit_config

LOOKS = ["trainer.max_steps=2", "trainer.save_every=1", "validation.sample_inputs=1", "validation.sample_every=1"]


@pytest.mark.parametrize("first", [1, 2], ids=["the base's", "an adapter's"])
def test_where_memory_is_too_small_for_sampling_training_goes_on(
    first: int, model: Path, dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    usual, calls = LoadedModel.sample, list[int]()

    def full(family: Any, requests: Any) -> Any:  # noqa: ANN401
        calls.append(1)
        if len(calls) >= first:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(family, requests)

    monkeypatch.setattr(LoadedModel, "sample", full)
    run = tmp_path / "run"
    assert fit.run(fit_config(model, dataset, *LOOKS, f"run_dir={run}"), []) == 0
    said = capsys.readouterr()
    assert said.err.count("no sample videos: the memory is too small for sampling") == 1
    assert "before/after" not in said.out
    assert len(calls) == first, "it is not tried again"
    assert RunRecord.reopen(run).fields["state"] == "done"
    more = fit_config(model, dataset, *LOOKS, f"run_dir={run}", "trainer.max_steps=3")
    assert fit.run(more, []) == 0


def test_any_other_fault_of_sampling_ends_the_run(
    model: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:  # noqa: ANN401
        raise ValueError("wrong shape")

    monkeypatch.setattr(LoadedModel, "sample", broken)
    with pytest.raises(ValueError, match="wrong shape"):
        fit.run(fit_config(model, dataset, *LOOKS, f"run_dir={tmp_path / 'run'}"), [])
