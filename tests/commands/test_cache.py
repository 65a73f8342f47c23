"""`python -m svdtrain cache`, as a user runs it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, moving_square, save_tiny_dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


def two_shards(folder: Path) -> Path:
    save_tiny_dataset(folder, train=3)
    clips = [(f"more-{n}", encode_mp4(moving_square(n), 7), {"fps": 7}) for n in range(2)]
    write_shard(folder / "train-000001.tar", clips)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_filled_in_parts_or_at_once_it_is_the_same_and_fit_uses_it(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = fit_words(model, two_shards(tmp_path / "data"))
    whole, parts = f"data.cache_dir={tmp_path / 'whole'}", f"data.cache_dir={tmp_path / 'parts'}"
    assert main(["cache", *words, whole]) == 0
    assert "5 clips encoded, 0 were here; " in capfd.readouterr().out
    assert main(["cache", *words, parts, "part=2/2"]) == 0
    assert "2 clips encoded" in capfd.readouterr().out
    assert main(["fit", *words, parts, "data.cache=disk", f"run_dir={tmp_path / 'early'}"]) == 3
    assert "lacks 3 of 5 entries" in capfd.readouterr().err
    assert main(["cache", *words, parts]) == 0
    assert "3 clips encoded, 2 were here" in capfd.readouterr().out
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    assert main(["fit", *words, whole, f"run_dir={tmp_path / 'run'}"]) == 0
    assert f"encoded before, in {tmp_path / 'whole'}" in capfd.readouterr().out.replace("\n", "")
    assert main(["cache", *words, whole, "data.fps=6"]) == 3
    assert "is stale: fps was None, now 6.0" in capfd.readouterr().err


def test_clips_that_cannot_be_used_are_named_counted_and_replaced(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_dataset(tmp_path / "data", train=30)
    damaged = bytearray(encode_mp4(moving_square(0), 7))
    damaged[damaged.index(b"mdat") + 60 : damaged.index(b"mdat") + 160] = bytes(100)
    write_shard(folder / "train-000001.tar", [("broken", bytes(damaged), {"fps": 7})])
    words = [*fit_words(model, folder, "trainer.max_steps=40"), f"data.cache_dir={tmp_path / 'latents'}"]
    assert main(["cache", *words]) == 3
    assert "clip 'broken'" in capfd.readouterr().err
    skip = ["data.on_bad_sample=skip", "data.max_bad_fraction=0.2"]
    assert main(["cache", *words, *skip]) == 0
    out = capfd.readouterr().out
    assert "left out: clip 'broken'" in out
    assert "1 damaged" in out
    for cache in ("disk", "none"):
        run = tmp_path / cache
        assert main(["fit", *words, *skip, f"data.cache={cache}", f"run_dir={run}"]) == 0
    rows = [(tmp_path / cache / "bad_samples.jsonl").read_text().splitlines() for cache in ("disk", "none")]
    first, second = ([(json.loads(row)["position"], json.loads(row)["key"]) for row in each] for each in rows)
    assert first == second != []


def test_a_full_disk_leaves_no_half_of_a_shard(model: Path, tmp_path: Path) -> None:
    words = [*fit_words(model, save_tiny_dataset(tmp_path / "data")), f"data.cache_dir={tmp_path / 'latents'}"]
    done = subprocess.run(
        [sys.executable, "-m", "svdtrain", "cache", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert done.stderr.count("\n") == 2
    assert [path.name for path in (tmp_path / "latents").iterdir()] == ["recipe.json"]
