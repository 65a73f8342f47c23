"""What a run is asked while it trains, and what it does of itself: sample, save, stop, end early, keep the best."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread

import pytest
from safetensors import safe_open

from svdtrain.cli import main
from svdtrain.commands import control, fit
from svdtrain.config.control import ControlConfig
from svdtrain.launching.control import Control
from svdtrain.reporting.run_files import read_run
from svdtrain.training.checkpoint import checkpoints
from tests.tiny_runs import fit_config

LOOKS = ["validation.every=1", "validation.sample_inputs=1", "data.batch_size=1"]


def ran(model: Path, dataset: Path, run: Path, *words: str) -> int:
    given = [*LOOKS, *words, f"run_dir={run}"]
    return fit.run(fit_config(model, dataset, *given), given)


def events(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_a_run_that_trains_samples_saves_and_stops_when_asked(model: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def ask() -> None:
        while not (run / "metrics.jsonl").exists():
            pass
        for request in ("sample", "save", "stop"):
            control.run(ControlConfig.model_validate({"run": str(run), "request": request, "wait": 120}), [])

    asking = Thread(target=ask)
    asking.start()
    words = ["trainer.max_steps=100000", "validation.every=2", "trainer.save_every=99999", "optimizer.ema_decay=0.5"]
    assert ran(model, dataset, run, *words) == 130
    asking.join()
    told = events(run)
    asked = {one["request"]: one["step"] for one in told if one["event"] == "asked"}
    assert list(asked) == ["sample", "save", "stop"]
    done = [(one["event"], one["step"]) for one in told]
    assert done[0] == ("start", 0)
    assert {("sample", asked["sample"]), ("save", asked["save"]), ("save", asked["stop"])} <= set(done)
    assert done[-1] == ("stop", asked["stop"])
    folder = run / "samples" / f"step-{asked['sample']:06d}"
    assert {one.name for one in folder.iterdir()} == {"input-0.mp4", "raw-0.mp4", "contact_sheet.png"}
    assert (run / "before_after.mp4").is_file()
    assert f"step-{asked['save']:06d}" in {one.name for one in checkpoints(run)}
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("stopped", asked["stop"])
    assert not any(Control(run).folder.iterdir())


def test_looks_that_get_no_better_end_it_and_generic_and_training_clips_are_looked_at(
    model: Path, dataset: Path, tmp_path: Path
) -> None:
    """At this learning rate steps make the loss worse at once."""
    run = tmp_path / "run"
    words = [
        "trainer.stop_early=2",
        "trainer.max_steps=50",
        "optimizer.learning_rate=1",
        "validation.training_clips=3",
    ]
    assert ran(model, dataset, run, *words, f"validation.generic={dataset}", "validation.generic_clips=2") == 0
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"], record["ended_early"]) == ("done", record["best_step"] + 2, True)
    assert (run / "samples" / f"step-{record['step']:06d}" / "input-0.mp4").is_file()
    curves = read_run(run).curves
    for name in ("val_ratio", "train_ratio", "generic_ratio", "train_ratio_0.5", "generic_sigma_10"):
        assert [step for step, _ in curves[name]] == [*range(record["step"] + 1)]
    assert curves["train_ratio"][0][1] == curves["generic_ratio"][0][1] == 1.0
    assert curves["train_ratio"] != curves["generic_ratio"]


def test_the_best_look_is_kept_beside_the_newest(model: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        "trainer.max_steps=4",
        "optimizer.learning_rate=3e-3",
        "trainer.save_every=4",
        "validation.sample_inputs=0",
    ]
    assert ran(model, dataset, run, *words) == 0
    record = json.loads((run / "run.json").read_text())
    ratios = {int(step): ratio for step, ratio in record["validation_ratios"].items()}
    assert record["best_step"] == min(ratios, key=ratios.__getitem__) > 0
    with safe_open(run / "adapter_best" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["svdtrain.steps"] == str(record["best_step"])
    assert [one["step"] for one in events(run) if one["event"] == "best"][-1] == record["best_step"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop", "{tmp}"], "it is no run folder"),
        (["sample-now", "{tmp}/run"], "nothing trains there"),
        (["save-now", "run={tmp}/run", "wait=-1"], "wait"),
        (["stop", "{tmp}/run", "request=fly"], "request"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert main([word.format(tmp=tmp_path) for word in words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
