"""Sweeps: jobs of submitit, on this machine (hydra/launcher=submitit_slurm asks sbatch for the same), Optuna's, W&B's."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from svdtrain.cli import main
from svdtrain.commands.sweep_study import SweepStudy, Tried
from svdtrain.commands.sweep_trial import Fit, Outcome
from svdtrain.config import compose, overrides
from svdtrain.config.schema import FitConfig
from svdtrain.config.sweeping import Range, Space
from svdtrain.foundation.errors import UsageError
from svdtrain.launching.notice import Notice
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

ROOT = Path(__file__).parents[2]


def test_each_job_of_a_sweep_runs_by_submitit(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["adapter", "targets", "-m", "hydra/launcher=submitit_local"]
    words += ["config=style_lora", "adapter.targets=spatial,temporal"]
    done = subprocess.run(
        [sys.executable, "-m", "svdtrain", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    logs = [log.read_text() for log in tmp_path.glob("runs/sweeps/*/.submitit/*/*_log.out")]
    assert sorted("down_blocks.0  temporal" in log for log in logs) == [False, True], logs


RANK, RATE = "adapter.rank", "optimizer.learning_rate"
SPACE: Space = {RANK: [2, 4], RATE: Range(low=1e-4, high=1e-2, log=True)}


def measured(params: dict[str, Any]) -> float:
    return 1.0 - params[RANK] / 100 + abs(math.log10(params[RATE]) + 3) / 10


def study_in(folder: Path, space: Space = SPACE) -> SweepStudy:
    folder.mkdir(exist_ok=True)
    return SweepStudy(folder, space, ["config=style_lora"], seed=3, prune=True)


def swept(folder: Path, *calls: int) -> list[Tried]:
    """What a sweep tries, in calls that end with so many trials."""
    for trials in calls:
        study = study_in(folder)
        study.begin_with({RANK: 4, RATE: 1e-3})
        for trial in study.asked(trials):
            study.tell(trial, Outcome("done", measured(trial.params)))
    return study_in(folder).tried()


def test_a_sweep_begins_with_the_recipe_and_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, cut = swept(tmp_path / "whole", 9), swept(tmp_path / "cut", 2, 7, 9)
    assert whole == cut
    assert whole[0].params == {RANK: 4, RATE: 1e-3}
    assert len({one.params[RATE] for one in whole}) == 9
    assert all(one.params[RANK] in (2, 4) and 1e-4 <= one.params[RATE] <= 1e-2 for one in whole)


def test_a_trial_that_was_cut_off_comes_first(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    cut = next(study.asked(3))
    asked = list(zip(range(2), study_in(tmp_path).asked(3), strict=False))
    assert (asked[0][1].number, asked[0][1].params) == (cut.number, cut.params)
    assert asked[1][1].number == 1


def test_what_is_worse_than_the_median_is_pruned_and_what_fails_is_marked(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    outcomes = [Outcome("done", 0.9)] * 5 + [Outcome("failed", error="no memory"), Outcome("pruned", 1.2)]
    for trial, outcome in zip(study.asked(7), outcomes, strict=True):
        goes_on = [trial.looked(step, 1.2 if outcome.state == "pruned" else 0.9) for step in (1, 2)]
        assert all(goes_on) == (outcome.state != "pruned")
        study.tell(trial, outcome)
    assert [(one.state, one.ratio, one.error) for one in study.tried()[4:]] == [
        ("done", 0.9, ""),
        ("failed", 0.9, "no memory"),
        ("pruned", 1.2, ""),
    ]


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    study_in(tmp_path)
    with pytest.raises(UsageError, match="it holds a sweep of other words or of another space"):
        study_in(tmp_path, {RANK: [2, 8]})


@pytest.mark.parametrize(
    ("space", "words", "said"),
    [
        ("seed: [1, 2]", ["run_dir=a"], "run_dir: each fit of a sweep has a folder of its own"),
        ("seed: [1, 2]", ["trials=0"], "trials"),
        ("adapter.rnak: [1, 2]", [], "space: no such setting 'adapter.rnak'"),
        ("seed: {low: 3, high: 2}", [], "low=3 is not below high=2"),
        ("seed: {low: 0, high: 2, log: true}", [], "low=0 is not above 0"),
        ("seed: 1", [], "space"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    space: str,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "space").mkdir(parents=True)
    (tmp_path / "mine" / "space" / "mine.yaml").write_text(space)
    words = ["space=mine", "--config-dir", "mine", "config=style_lora", "out=swept", *words]
    assert main(["sweep", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("swept/trial-*"))


def test_a_fit_that_fails_says_why(tmp_path: Path) -> None:
    fit = Fit(["config=style_lora"], {"adapter.rank": 0}, tmp_path / "trial-000")
    outcome = fit.run(Notice(), lambda *_: True)
    assert (outcome.state, outcome.is_mistake) == ("failed", True)
    assert "adapter.rank" in outcome.error


@pytest.mark.slow
def test_a_sweep_trains_goes_on_and_names_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = fit_words(save_tiny_svd(tmp_path / "model"), save_tiny_dataset(tmp_path / "data"), "logger=csv")
    words = [word for word in words if not word.startswith("adapter.rank")]
    for trials in (1, 2):
        assert main(["sweep", *words, "space=rate", f"trials={trials}", f"out={tmp_path / 'out'}"]) == 0
    told = json.loads((tmp_path / "out" / "sweep.json").read_text())
    ratios = {one["number"]: one["ratio"] for one in told["trials"]}
    assert len(ratios) == 2
    assert told["best"] == min(ratios, key=lambda number: ratios[number])
    for one in told["trials"]:
        record = json.loads((tmp_path / "out" / one["folder"] / "run.json").read_text())
        config = (tmp_path / "out" / one["folder"] / "config.yaml").read_text()
        assert one["ratio"] == record["validation_ratios"]["2"]
        assert f"learning_rate: {one['params'][RATE]}" in config
    shown = capsys.readouterr().out
    assert f"trial {told['best']}: held-out loss is" in shown
    assert "1 of 2 trials are there" in shown


def test_the_sweep_file_of_wandb_starts_fits() -> None:
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb" / "sweep.yaml").read_text())
    kinds = {key: one.get("values") or [one["min"], one["max"]] for key, one in sweep["parameters"].items()}
    for place in (0, -1):
        values = [f"{key}={found[place]}" for key, found in kinds.items()]
        command = [word for one in sweep["command"] for word in (values if one == "${args_no_hyphens}" else [one])]
        assert command[:5] == ["${env}", "${interpreter}", "-m", "${program}", "fit"]
        [config] = compose.check(overrides.parse(command[5:], "fit"), FitConfig)
        assert (config.logger.kind, config.adapter.spatial.rank) == ("wandb", kinds[RANK][place])
