"""A run that was cut off and resumed ends where an uncut one ends, to the bit."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svdtrain.cli import main
from svdtrain.commands import fit
from svdtrain.foundation.errors import DataError, ModelError, UsageError
from svdtrain.reporting.run_files import METRICS, read_run
from svdtrain.reporting.run_lock import locked
from svdtrain.training.checkpoint import FolderCheckpoint, checkpoints
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_config, fit_words, save_tiny_dataset

ADAPTER = Path("adapter") / "adapter_model.safetensors"
LOOKS = ["validation.every=3", "validation.sample_every=3", "validation.sample_inputs=1", "data.batch_size=1"]


def ran(model: Path, dataset: Path, *words: str) -> int:
    return fit.run(fit_config(model, dataset, *words), list(words))


def record_of(run: Path) -> dict[str, object]:
    return json.loads((run / "run.json").read_text())


def losses_in(run: Path) -> dict[int, float]:
    """step -> loss, to the bit."""
    return dict(read_run(run).curves["loss"])


def assert_equal_tensors(left: Path, right: Path) -> None:
    """Bit for bit (the order of a safetensors header is random, so files cannot be compared whole)."""
    a, b = load_file(left), load_file(right)
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def cut_to(whole: Path, to: Path, keep: int) -> Path:
    """A copy of a run with so many of its checkpoints, the oldest."""
    shutil.copytree(whole, to)
    for checkpoint in checkpoints(to)[keep:]:
        shutil.rmtree(checkpoint)
    return to


def cut_after_three(whole: Path, to: Path) -> Path:
    """A copy of a run as it lay there when it broke off: the newest checkpoint is that of step 3."""
    shutil.copytree(whole, to)
    (to / METRICS).unlink()  # what comes then is of the run that goes on
    shutil.rmtree(to / "checkpoints" / "step-000006")
    for result in ("adapter", "denoiser"):
        shutil.rmtree(to / result, ignore_errors=True)
    return to


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.schedule=cosine", "optimizer.warmup_steps=2"],
        ["trainer.accumulate=2", "optimizer.ema_decay=0.9", "data.cache=none"],
        ["adapter.kind=dora", "optimizer.lora_plus_ratio=8"],
        ["adapter.kind=lokr", "adapter.blocks=[up_blocks,mid_block]"],
        ["adapter=full", "optimizer.ema_decay=0.9", "memory=blocks"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_resumed_run_is_the_uncut_run_to_the_bit(
    model: Path, dataset: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, *LOOKS, "trainer.max_steps=6", "optimizer.learning_rate=1e-2"]
    whole = tmp_path / "whole"
    assert ran(model, dataset, *words, f"run_dir={whole}") == 0
    again = cut_after_three(whole, tmp_path / "again")
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("something was unpickled"))
    assert ran(model, dataset, *words, f"resume={again}") == 0
    monkeypatch.undo()
    result = Path("denoiser") / "diffusion_pytorch_model.safetensors" if "adapter=full" in words else ADAPTER
    for file in (result, Path("checkpoints/step-000006/tensors.safetensors")):
        assert_equal_tensors(again / file, whole / file)
    videos = [video.relative_to(whole) for video in (*whole.glob("samples/step-000006/*.mp4"), *whole.glob("*.mp4"))]
    assert Path("before_after.mp4") in videos
    for video in videos:
        assert (again / video).read_bytes() == (whole / video).read_bytes()
    assert record_of(again)["validation_ratios"] == record_of(whole)["validation_ratios"]
    assert (record_of(again)["state"], record_of(again)["step"]) == ("done", 6)
    assert losses_in(again) == {step: loss for step, loss in losses_in(whole).items() if step > 3}
    assert sorted(losses_in(again)) == [4, 5, 6]


@pytest.fixture(scope="module")
def short(model: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    run = tmp_path_factory.mktemp("runs") / "short"
    assert ran(model, dataset, f"run_dir={run}") == 0
    return run


def test_a_finished_run_goes_further_only_when_asked(model: Path, dataset: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    before = (run / ADAPTER).read_bytes()
    record = (run / "run.json").read_text()
    with pytest.raises(UsageError, match="the run is complete at step 2"):
        ran(model, dataset, f"resume={run}")
    assert (run / "run.json").read_text() == record
    assert ran(model, dataset, f"resume={run}", "trainer.max_steps=3") == 0
    assert (run / ADAPTER).read_bytes() != before
    assert record_of(run)["step"] == 3
    shutil.rmtree(run / "checkpoints")
    kept = (run / ADAPTER).read_bytes()
    for words in ([f"resume={run}"], [f"run_dir={run}"]):
        with pytest.raises(UsageError, match="has trained 3 steps and its checkpoints are gone"):
            ran(model, dataset, *words, "trainer.max_steps=4")
    assert (run / ADAPTER).read_bytes() == kept


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["seed=5"], UsageError, "seed was 0, now it is 5"),
        (["seed=5", "change=[seed]"], DataError, "seed was 0, now it is 5"),
        (
            ["optimizer.learning_rate=0.5", "seed=7"],
            UsageError,
            "adapter.spatial.learning_rate was 0.003, now it is 0.5; .*and 1 more",
        ),
        (["optimizer.schedule=cosine"], UsageError, "optimizer.schedule was constant, now it is cosine"),
        (["data.batch_size=3"], DataError, "batch_size x devices was 2, now it is 3"),
        (["adapter.rank=3"], UsageError, "adapter.spatial.alpha was 2.0, now it is 3.0"),
        (["adapter.targets=spatial", "change=[adapter.targets]"], ModelError, "the checkpoint differs in"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_settings_cannot_go_on(
    model: Path, dataset: Path, short: Path, tmp_path: Path, words: list[str], error: type[Exception], said: str
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    with pytest.raises(error, match=said):
        ran(model, dataset, f"resume={run}", "trainer.max_steps=4", *words)
    assert record_of(run) == record_of(short), "a refused resume leaves the run as it was"
    assert (run / ADAPTER).read_bytes() == (short / ADAPTER).read_bytes()


def test_a_change_that_is_allowed_takes_effect(model: Path, dataset: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    words = ["optimizer.learning_rate=1e-7", "optimizer.weight_decay=0.5"]
    change = "change=[optimizer.learning_rate,optimizer.weight_decay]"
    assert ran(model, dataset, f"resume={run}", "trainer.max_steps=3", *words, change) == 0
    [state] = FolderCheckpoint().load_checkpoint(run / "checkpoints" / "step-000003")["optimizer_states"]
    assert {group["lr"] for group in state["param_groups"]} == {1e-7, 0.2e-7}
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.5}


def test_clips_that_come_from_a_cache_now_are_told(
    model: Path, dataset: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cache = tmp_path / "copy", ["data.cache=auto", f"data.cache_dir={tmp_path / 'cache'}"]
    shutil.copytree(short, run)
    assert main(["cache", *fit_words(model, dataset, *cache)]) == 0
    assert "not bit for bit" not in capsys.readouterr().err
    assert ran(model, dataset, *cache, f"resume={run}", "trainer.max_steps=3") == 0
    assert "clips come now from a cache on disk: not bit for bit; data.cache=none keeps" in capsys.readouterr().err


def test_the_same_command_goes_on_in_its_run_dir(model: Path, dataset: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    assert ran(model, dataset, f"run_dir={run}", "trainer.max_steps=3") == 0
    assert record_of(run)["step"] == 3
    with pytest.raises(UsageError, match="the run is complete at step 3"):
        ran(model, dataset, f"run_dir={run}", "trainer.max_steps=3")


def test_a_damaged_checkpoint_is_passed_over_and_said(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.save_every=1", "trainer.max_steps=3", "data.batch_size=1"]
    assert ran(model, dataset, *words, f"run_dir={tmp_path}/whole") == 0
    run = cut_to(tmp_path / "whole", tmp_path / "again", keep=2)
    newest = checkpoints(run)[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert ran(model, dataset, *words, f"resume={run}") == 0
    assert "step-000002 is passed over: tensors.safetensors is not what manifest.json lists" in capsys.readouterr().err
    assert_equal_tensors(run / ADAPTER, tmp_path / "whole" / ADAPTER)


def test_two_processes_never_train_in_one_folder(model: Path, dataset: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    with locked(run), pytest.raises(UsageError, match=f"process {os.getpid()} on .* trains there"):
        ran(model, dataset, f"resume={run}", "trainer.max_steps=3")
    assert record_of(run) == record_of(short)


def test_another_base_cannot_go_on(dataset: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    other = save_tiny_svd(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="it was trained on another base: same shapes, other weights"):
        ran(other, dataset, f"resume={run}", "trainer.max_steps=3")


def test_another_dataset_cannot_go_on(model: Path, short: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(short, run)
    other = save_tiny_dataset(tmp_path / "other", train=4, held_out=2)
    with pytest.raises(DataError, match="the dataset of data.source was"):
        ran(model, other, f"resume={run}", "trainer.max_steps=4")


def test_only_the_newest_checkpoints_are_kept(model: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["trainer.max_steps=5", "trainer.save_every=1", "trainer.keep_checkpoints=2", "data.batch_size=1"]
    assert ran(model, dataset, *words, f"run_dir={run}") == 0
    assert [path.name for path in checkpoints(run)] == ["step-000004", "step-000005"]


@pytest.mark.parametrize("keeps", [True, False])
def test_the_best_checkpoint_is_kept_on_request(model: Path, dataset: Path, tmp_path: Path, *, keeps: bool) -> None:
    """Each step of this learning rate makes the held-out loss worse, so the first save is the best."""
    run = tmp_path / "run"
    looks = ["validation.every=1", "trainer.save_every=1", "trainer.keep_checkpoints=1"]
    words = [*looks, "trainer.max_steps=3", "optimizer.learning_rate=0.3", f"trainer.keep_best={str(keeps).lower()}"]
    assert ran(model, dataset, *words, f"run_dir={run}") == 0
    ratios = record_of(run)["validation_ratios"]
    assert isinstance(ratios, dict)
    assert ratios["1"] < min(ratios["2"], ratios["3"])
    assert [path.name for path in checkpoints(run)] == ["step-000001"] * keeps + ["step-000003"]
    assert record_of(run)["best_checkpoint"] == ("step-000001" if keeps else None)


def test_resume_auto_takes_the_newest_run_of_the_name(
    model: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no run in runs/style_lora"):
        ran(model, dataset, "resume=auto")
    assert ran(model, dataset) == 0
    assert ran(model, dataset, "resume=auto", "trainer.max_steps=3") == 0
    [run] = (tmp_path / "runs" / "style_lora").iterdir()
    assert record_of(run)["step"] == 3
