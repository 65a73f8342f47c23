"""`fit data.order=stream`: it trains, says what it is, and after a restart counts on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, moving_square, save_tiny_dataset


def test_streaming_trains_and_restarts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_dataset(tmp_path / "data")
    write_shard(folder / "train-000001.tar", [("more", encode_mp4(moving_square(9), 7), {"fps": 7})])
    words = fit_words(save_tiny_svd(tmp_path / "svd"), folder, "data.order=stream", f"run_dir={tmp_path / 'run'}")
    assert main(["fit", *words]) == 0
    assert "clips as they come (not exactly resumable) and 2 held out" in capfd.readouterr().out.replace("\n", " ")
    assert main(["fit", *words[:-1], f"resume={tmp_path / 'run'}", "trainer.max_steps=4"]) == 0
    assert "warning: data.order=stream cannot go on where it was" in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 4
    for word in ("data.buckets=true", "data.cache=disk", "data.cache=memory", "data.stills=true"):
        assert main(["fit", *words[:-1], word]) == 2
        assert "wants every clip listed, and data.order is stream" in capfd.readouterr().err
