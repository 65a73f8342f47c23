"""Trackio and TensorBoard: what they keep on this machine, read back by their own formats."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from svdtrain.generation.video_files import write_mp4
from svdtrain.training.trackers.tracker import Look, LookedInput
from tests.tiny_runs import fit_words, moving_square

ROOT = Path(__file__).parents[2]
EVERY_STEP = [
    "validation.every=1",
    "validation.sample_every=1",
    "validation.sample_inputs=1",
    "trainer.save_every=1",
    "trainer.keep_checkpoints=2",
    "trainer.on_nonfinite=skip",
]


def test_trackio_keeps_the_same_on_this_machine(model: Path, dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    words = fit_words(
        model, dataset, *EVERY_STEP, "logger=trackio", "logger.patience=240", "trainer.max_steps=2", "run_dir=run"
    )
    done = subprocess.run(
        [sys.executable, "-m", "svdtrain", "fit", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "left alone" not in done.stderr, done.stderr
    [file] = tmp_path.glob("trackio/*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(text) for (text,) in database.execute("select metrics from metrics order by id")]
        [config] = [json.loads(text) for (text,) in database.execute("select config from configs")]
        alerts = [title for (title,) in database.execute("select title from alerts")]
        kinds = [kind for (kind,) in database.execute("select type from artifacts")]
    names = {name for row in rows for name in row}
    assert {
        "loss",
        "val_ratio",
        "adapter_norm_spatial",
        "samples/input-0/base",
        "samples/input-0/with-adapter",
    } <= names
    assert config["trainer"]["max_steps"] == 2
    assert alerts == ["end"]
    assert sorted(set(kinds)) == ["dataset", "model"]
    assert len(list(tmp_path.glob("trackio/media/**/*.mp4"))) == 4


def test_tensorboard_shows_samples_and_alerts(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from svdtrain.training.trackers.tensorboard import TensorBoardTracker

    for name, number in (("base", 0), ("adapter", 1)):
        write_mp4(tmp_path / f"{name}.mp4", moving_square(number), 7)
    tracker = TensorBoardTracker(tmp_path)
    tracker.start({"seed": 1})
    tracker.scalars({"loss": 0.5}, 3)
    tracker.look(Look(3, 0.9, [LookedInput("input-0", tmp_path / "base.mp4", tmp_path / "adapter.mp4")]))
    tracker.alert("spike", "it is ten times the usual")
    tracker.end("done", [])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("loss")[0].value == 0.5
    [picture] = events.Images("samples/input-0")
    assert picture.encoded_image_string[:4] == b"\x89PNG"
    assert {"config/text_summary", "alert/spike/text_summary"} <= set(events.Tags()["tensors"])  # type: ignore[arg-type]
