"""The product's commands as a user gives them, from shards to videos, on a tiny model and on the packaged one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import svdtrain
from svdtrain.cli import main
from svdtrain.foundation.files import PACKAGE
from svdtrain.generation.video_files import encode_mp4
from tests.data.videos import REAL_CLIPS
from tests.tiny_models import FRAMES, SIZE, load_tiny_svd, save_tiny_svd
from tests.tiny_runs import GEOMETRY, fit_words, save_picture, save_tiny_dataset

ROOT = Path(__file__).parents[1]
WITH_NANO = pytest.mark.skipif(not (PACKAGE / "assets" / "nano" / "unet").is_dir(), reason="needs the nano base")
ONE_STEP = ["debug=quick", "trainer.max_steps=1", "validation.sample_inputs=0", "validation.sigmas=[2.0]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dataset(tmp_path_factory.mktemp("dataset"))


def shell(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "svdtrain", *words]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of `fit config=style_lora` on the packaged demo set, run from an empty folder, and what it said."""
    folder = tmp_path_factory.mktemp("elsewhere")
    words = ["trainer.max_steps=3", "optimizer.learning_rate=1e-2", "validation.sample_inputs=1", "validation.every=2"]
    words += ["trainer.report=true"]
    done = shell("fit", *fit_words(model, Path("demo:style"), *words), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir()] == ["runs"], "a fit writes its run folder and nothing else"
    [run] = (folder / "runs" / "style_lora").iterdir()
    return run, done.stdout


def test_a_fit_leaves_what_it_promises(trained: tuple[Path, str]) -> None:
    run, said = trained
    for file in (
        "before_after.mp4",
        "contact_sheet.png",
        "report.html",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    ):
        assert (run / file).stat().st_size > 0
        assert run.name in said
    assert f"generate adapter=runs/style_lora/{run.name} image=PICTURE out=video.mp4" in said
    assert {path.name for path in (run / "samples").iterdir()} == {"step-000000", "step-000003"}
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("done", 3)
    assert record["validation_ratios"]["0"] == 1.0
    assert list(record["validation_ratios"]) == ["0", "2", "3"]
    assert f"verdict        {record['verdict']['sentence']}" in said
    assert 0 < record["speed"]["share_waiting_for_data"] < record["speed"]["share_outside_denoiser"] < 1
    assert record["dataset"]["train_clips"] > record["dataset"]["held_out_clips"] > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "time", "loss", "val_ratio", "steps_per_second", "gradient_norm"} <= set().union(*rows)
    assert len(rows) >= 3
    config = (run / "config.yaml").read_text()
    assert "demo:style" in config
    assert "${" not in config


def test_the_adapter_says_how_it_was_made(trained: tuple[Path, str]) -> None:
    with safe_open(trained[0] / "adapter" / "adapter_model.safetensors", "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    told = {name.removeprefix("svdtrain."): value for name, value in header.items()}
    assert (told["model"], told["recipe"], told["steps"]) == ("nano", "style_lora", "3")
    assert (told["rank"], told["alpha"]) == ("spatial=2 temporal=2", "spatial=2 temporal=2")
    assert told["targets"] == "both attention_and_feed_forward"
    assert (told["fps"], told["motion_bucket"], told["version"]) == ("clip", "16-254", svdtrain.__version__)
    assert told["base_fingerprint"]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(float(t.abs().max()) > 0 for name, t in tensors.items() if "lora_B" in name), "every module has learnt"


@pytest.mark.parametrize("how", ["whole", "half", "base"])
def test_generate_makes_the_frames_of_a_stock_pipeline(
    model: Path, trained: tuple[Path, str], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lines of Python and the command make the same mp4, byte for byte."""
    monkeypatch.chdir(trained[0].parents[2])
    picture, out = save_picture(tmp_path / "a.png"), tmp_path / "b.mp4"
    options = ["image=" + str(picture), f"out={out}", "steps=3", "seed=5", "fps=6", "device=cpu"]
    run = str(trained[0].relative_to(Path.cwd()))
    words = {"whole": [f"adapter={run}"], "half": [f"adapter={run}", "strength=0.5", "temporal_strength=0"]}
    chosen = words.get(how, ["base_only=true", f"model.source={model}"])
    if how == "whole":
        done = shell("generate", *chosen, *options, *GEOMETRY, cwd=Path.cwd())
        assert done.returncode == 0, done.stderr
    else:
        assert main(["generate", *chosen, *options, *GEOMETRY]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.mp4", "b.png"]

    pipe = load_tiny_svd(model).pipeline()
    if how == "whole":
        svdtrain.load_adapter(pipe, trained[0])
    if how == "half":
        svdtrain.load_adapter(pipe, trained[0], 0.5, temporal=0.0)
    pipe.set_progress_bar_config(disable=True)
    result: Any = pipe(
        Image.open(picture),
        height=SIZE,
        width=SIZE,
        num_frames=FRAMES,
        num_inference_steps=3,
        fps=6,
        motion_bucket_id=127,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    )
    assert out.read_bytes() == encode_mp4((result.frames[0] * 255).round().astype(np.uint8), 6)


def test_generate_takes_folders_seeds_and_several_adapters(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained[0].parents[2])
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / "pictures" / name, 48, 80)
    words = [f"image={tmp_path / 'pictures'}", f"out={tmp_path / 'videos'}", "seed=[1,2]", "steps=1", "device=cpu"]
    adapters = [f"adapter=[{trained[0]},{trained[0]}]", "strength=[0.5,0.25]"]
    assert main(["generate", *adapters, *words, *GEOMETRY]) == 0
    names = {path.name for path in (tmp_path / "videos").iterdir()}
    assert names == {"a-1.mp4", "a-2.mp4", "b-1.mp4", "b-2.mp4", "contact_sheet.png"}
    videos = {path.read_bytes() for path in (tmp_path / "videos").glob("*.mp4")}
    assert len(videos) == 2, "equal pictures and seeds give equal videos, other seeds others"


def test_wandb_without_a_key_is_kept_offline_and_never_asks(model: Path, dataset: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "WANDB_API_KEY": "", "WANDB_MODE": ""}
    words = fit_words(
        model, dataset, "logger=wandb", "logger.patience=240", "trainer.max_steps=1", f"run_dir={tmp_path / 'run'}"
    )
    done = shell("fit", *words, cwd=tmp_path, **home)
    assert done.returncode == 0, done.stderr
    assert "kept offline" in done.stdout
    [log] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert log.stat().st_size > 0
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "home"}, "nothing is written outside the run folder"


def test_tensorboard_files_stand_in_the_run_folder(model: Path, dataset: Path, tmp_path: Path) -> None:
    words = ["logger=tensorboard", "logger.patience=240", "trainer.max_steps=1", f"run_dir={tmp_path / 'run'}"]
    assert main(["fit", *fit_words(model, dataset, *words)]) == 0
    [events] = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    assert b"val_ratio" in events.read_bytes()


@WITH_NANO
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["config=style_lora"],
        ["config=subject_lora"],
        ["config=motion_lora"],
        ["config=camera_lora"],
        ["config=nano_pretrain", "data.source=demo:style"],
    ],
    ids=lambda words: words[0],
)
def test_each_recipe_takes_a_step_on_the_packaged_model(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["fit", *words, *ONE_STEP, f"run_dir={run}"]) == 0
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("done", 1)
    result = "denoiser/diffusion_pytorch_model" if "nano_pretrain" in words[0] else "adapter/adapter_model"
    assert (run / f"{result}.safetensors").is_file()


@WITH_NANO
@pytest.mark.slow
@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="needs the real clips")
def test_a_fit_runs_on_shards_of_real_clips(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    options = ["fps=10", "short_side=64", "seconds=2", "workers=1"]
    assert main(["prepare", f"source={REAL_CLIPS}", f"out={shards}", *options]) == 0
    before = {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    capfd.readouterr()
    assert main(["prepare", f"source={shards}", f"out={tmp_path / 'again'}", *options]) == 0
    assert "is a prepared dataset already" in capfd.readouterr().out
    assert main(["prepare", f"source={REAL_CLIPS}", f"out={shards}", *options]) == 0
    assert before == {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    assert not (tmp_path / "again").exists()
    assert main(["inspect", f"source={shards}", f"out={tmp_path / 'page.html'}"]) == 0
    assert "</html>" in (tmp_path / "page.html").read_text()
    words = ["config=style_lora", f"data.source={shards}", "data.fps=10", f"data.cache_dir={tmp_path / 'latents'}"]
    assert main(["cache", *words, "data.windows=2"]) == 0
    assert main(["fit", *words, "data.windows=2", "data.cache=disk", *ONE_STEP, f"run_dir={run}"]) == 0
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
