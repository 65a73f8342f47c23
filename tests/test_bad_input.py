"""Every mistake a user can make ends in one line that names it, an exit code by kind, and nothing written."""

from __future__ import annotations

import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.adapters.files import save_adapter
from svdtrain.adapters.fingerprint import fingerprint
from svdtrain.adapters.inject import adapter_parameters, inject, peft_config
from svdtrain.adapters.spec import AdapterInfo, AdapterSpec, HalfSpec
from svdtrain.cli import main
from svdtrain.data.shards import write_shard
from svdtrain.families.svd import SPEC
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_models import load_tiny_svd, save_tiny_svd
from tests.tiny_runs import GEOMETRY, fit_words, moving_square, save_picture, save_tiny_dataset

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good things (model, data, adapter, a.png) and of bad ones, named by what is wrong with them."""
    root = tmp_path_factory.mktemp("world")
    save_tiny_svd(root / "model")
    save_tiny_svd(root / "other_model", seed=1)
    save_tiny_dataset(root / "data")
    save_picture(root / "a.png")
    save_adapter_of(root / "model", root / "adapter")
    (root / "text.png").write_text("not a picture")
    (root / "video.mp4").write_text("an earlier result")
    bad_models(root)
    bad_datasets(root)
    (root / "taken").mkdir()
    (root / "taken" / "notes.txt").write_text("mine")
    (root / "torn_adapter.safetensors").write_bytes((root / "adapter/adapter_model.safetensors").read_bytes()[:-9])
    return root


def save_adapter_of(model: Path, folder: Path) -> None:
    family = load_tiny_svd(model)
    mark = fingerprint(family.denoiser)
    spec = AdapterSpec({"spatial": HalfSpec(SPEC.targets["attention"]["spatial"], 2, 2, 1e-3)})
    inject(family.denoiser, spec, seed=0)
    info = AdapterInfo(model="nano", source=str(model), base="tiny", base_fingerprint=mark)
    tensors = {name: tensor.detach().numpy() for name, tensor in adapter_parameters(family.denoiser).items()}
    save_adapter(folder, tensors, peft_config(spec).to_dict(), info)


def bad_models(root: Path) -> None:
    for name in ("no_unet", "pickled", "cut_weights"):
        save_tiny_svd(root / name)
    (root / "no_unet" / "unet").rename(root / "no_unet" / "net")
    weights = root / "pickled" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    weights = root / "cut_weights" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def bad_datasets(root: Path) -> None:
    good = encode_mp4(moving_square(0), 7)
    (root / "empty").mkdir()
    (root / "videos").mkdir()
    (root / "videos" / "a.mp4").write_bytes(good)
    (root / "not_a_tar").mkdir()
    (root / "not_a_tar" / "a.tar").write_text("no tar" * 500)
    (root / "no_mp4").mkdir()
    with tarfile.open(root / "no_mp4" / "a.tar", "w") as tar:
        tar.add(root / "a.png", "picture.png")
    write_shard(root / "text" / "a.tar", [("good", good, {}), ("bad", b"plain text, no video", {})])
    write_shard(root / "short" / "a.tar", [("good", good, {}), ("bad", encode_mp4(moving_square(0, 2), 7), {})])
    write_shard(root / "cut" / "a.tar", [("good", good, {}), ("bad", good[: len(good) // 2], {})])
    write_shard(root / "lonely" / "a.tar", [("good", good, {})])


FIT, GENERATE = "fit", "generate"
ROWS: list[tuple[Any, ...]] = [  # name, command, words that go wrong, exit code, fragments of error and hint
    ("empty folder", FIT, "data.source={w}/empty", 3, "empty' holds no .tar shards"),
    ("folder of plain videos", FIT, "data.source={w}/videos", 3, "holds plain videos", "svdtrain prepare"),
    ("no folder", FIT, "data.source={w}/nothing", 3, "nothing': there is no such file or folder"),
    ("no demo set", FIT, "data.source=demo:stile", 3, "demo:stile", "did you mean 'style'?"),
    ("address", FIT, "data.source=pipe:cat", 3, "pipe: addresses are refused"),
    ("bucket", FIT, "data.source=s3://bucket/a.tar", 3, "need the package s3fs", "pip install s3fs"),
    ("no tar", FIT, "data.source={w}/not_a_tar", 3, "a.tar is no readable tar"),
    ("no mp4 in a shard", FIT, "data.source={w}/no_mp4", 3, "a.tar holds no video: its members are .png"),
    ("text named mp4", FIT, "data.source={w}/text", 3, "clip 'bad' in {w}/text/a.tar is no video"),
    ("cut clip", FIT, "data.source={w}/cut", 3, "clip 'bad' in {w}/cut/a.tar is damaged"),
    ("too few frames", FIT, "data.source={w}/short", 3, "clip 'bad' in {w}/short/a.tar is too short: 3 frames"),
    ("one clip", FIT, "data.source={w}/lonely", 3, "holds 1 clip"),
    ("higher rate", FIT, "data.fps=50", 3, "has 7 fps, 50 are asked for", "data.fps=7"),
    ("recipe without data", FIT, "data.source=null", 2, "data.source: is not set"),
    ("rank 0", FIT, "adapter.rank=0", 2, "adapter.rank: 0 is not allowed"),
    ("half's rank", FIT, "adapter.temporal.rank=-4", 2, "adapter.temporal.rank: -4 is not allowed"),
    ("one frame", FIT, "model.frames=1", 2, "model.frames: 1 is not allowed"),
    ("negative rate", FIT, "optimizer.learning_rate=-1", 2, "optimizer.learning_rate: -1 is not allowed"),
    ("rate nan", FIT, "optimizer.learning_rate=nan", 2, "optimizer.learning_rate: nan is not allowed"),
    ("rate inf", FIT, "optimizer.learning_rate=inf", 2, "optimizer.learning_rate: inf is not allowed"),
    ("decay a word", FIT, "optimizer.weight_decay=much", 2, "optimizer.weight_decay: 'much' is not allowed"),
    ("odd size", FIT, "model.height=65", 2, "model.height: 65 is not a multiple of 16", "model.height=64 or 80"),
    ("long warm-up", FIT, "optimizer.warmup_steps=50", 2, "optimizer.warmup_steps: 50"),
    ("pattern matches nothing", FIT, "adapter.pattern=.*attn7.*", 4, "matches 0 of", "nearest: "),
    ("pattern unheard", FIT, "adapter.pattern=.*attn2.to_q", 2, "change nothing", "adapter.modules=attention or "),
    ("pattern is none", FIT, "adapter.pattern='(('", 4, "not a regular expression"),
    ("no unet", FIT, "model.source={w}/no_unet", 4, "no_unet: it has no folder 'unet'", "model.source=FOLDER"),
    ("no model", FIT, "model.source={w}/nothing", 4, "nothing: there is no such folder", "model.source=FOLDER"),
    ("weights as a pickle", FIT, "model.source={w}/pickled", 4, "'unet' cannot be loaded", "safetensors"),
    ("cut weights", FIT, "model.source={w}/cut_weights", 4, "'unet' cannot be loaded"),
    ("run folder in use", FIT, "run_dir={w}/taken", 2, "run_dir={w}/taken: the folder is not empty"),
    ("run folder a file", FIT, "run_dir={w}/a.png", 2, "run_dir={w}/a.png: taken by another run or file"),
    ("resume nothing", FIT, "resume={w}/nothing", 2, "resume={w}/nothing: it is no run folder"),
    ("resume no run", FIT, "resume={w}/taken", 2, "resume={w}/taken: it is no run folder"),
    ("resume before the first", FIT, "resume=auto", 2, "there is no run in runs/style_lora"),
    ("unknown recipe", FIT, "config=stle_lora", 2, "no such recipe; did you mean 'style_lora'?"),
    ("unknown key", FIT, "optimizer.learning_rat=1", 2, "did you mean 'optimizer.learning_rate'?"),
    ("unknown option", FIT, "model=svd_xl", 2, "no such option of model; did you mean 'svd_xt'?"),
    ("no value", FIT, "style_lora", 2, "style_lora: not of the form KEY=VALUE; did you mean 'config=style_lora'?"),
    ("unknown flag", FIT, "--fast", 2, "--fast"),
    ("sweep without -m", FIT, "seed=1,2", 2, "several values for one run"),
    ("no budget", FIT, "memory.budget=0GiB", 2, "memory.budget: '0GiB' is not allowed"),
    ("no CUDA", FIT, "trainer.device=cuda", 2, "trainer.device=cuda: torch sees no CUDA device"),
    ("no adapter file", GENERATE, "adapter={w}/nothing", 4, "adapter={w}/nothing: does not exist"),
    ("folder without adapter", GENERATE, "adapter={w}/taken", 4, "adapter={w}/taken: holds neither"),
    ("torn adapter", GENERATE, "adapter={w}/torn_adapter.safetensors", 4, "not a whole safetensors file"),
    ("adapter of another base", GENERATE, "model.source={w}/other_model", 4, "made for tiny, and this model has"),
    ("neither adapter nor base", GENERATE, "adapter=null", 2, "adapter: is not set", "base_only=true"),
    ("no image given", GENERATE, "image=null", 2, "image: is not set"),
    ("image is no image", GENERATE, "image={w}/text.png", 3, "image={w}/text.png: not a picture"),
    ("no image there", GENERATE, "image={w}/nothing.png", 3, "nothing.png: no such file or folder"),
    ("folder without images", GENERATE, "image={w}/empty", 3, "the folder holds no pictures"),
    ("result exists", GENERATE, "out={w}/video.mp4", 2, "{w}/video.mp4 exists already"),
    ("sheet of the result exists", GENERATE, "out={w}/text.mp4", 2, "{w}/text.png exists already"),
    ("result nowhere", GENERATE, "out={w}/a.png/new.mp4", 5, "{w}/a.png cannot be written: Not a directory"),
    ("result no mp4", GENERATE, "out={w}/new.gif", 2, "one video is written to an mp4 file"),
    ("strengths too many", GENERATE, "strength=[1.0,0.5]", 2, "2 numbers for 1 adapters"),
    ("strength nan", GENERATE, "strength=nan", 2, "strength: nan is not allowed"),
    ("no steps", GENERATE, "steps=0", 2, "steps: 0 is not allowed"),
    ("no CUDA", GENERATE, "device=cuda", 2, "device=cuda: torch sees no CUDA device"),
]


def snapshot(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def assert_one_error(shown: str, *fragments: str) -> None:
    """One `error:` line, perhaps one `hint:` line, and nothing else but warnings; each fragment is in its line."""
    lines = [line for line in shown.splitlines() if not line.startswith("warning: ")]
    assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"]), shown
    assert "Traceback" not in shown
    assert len(lines) >= len(fragments), shown
    for line, fragment in zip(lines, fragments, strict=False):
        assert fragment in line


def words_for(command: str, world: Path, wrong: str) -> list[str]:
    if command == FIT:
        return [FIT, *(fit_words(world / "model", world / "data", wrong))]
    given = [f"adapter={world / 'adapter'}", f"image={world / 'a.png'}", f"out={world / 'new.mp4'}", "device=cpu"]
    kept = [word for word in given if word.partition("=")[0] != wrong.partition("=")[0]]
    return [GENERATE, *kept, *GEOMETRY, "steps=1", wrong] if not wrong.startswith("steps") else [GENERATE, *kept, wrong]


@pytest.mark.parametrize(
    ("command", "wrong", "code", "said"),
    [
        pytest.param(*row[1:4], row[4:], id=f"{row[1]} {row[0]}", marks=NO_CUDA if "CUDA" in row[0] else ())
        for row in ROWS
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    wrong: str,
    code: int,
    said: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(world, tmp_path)
    assert main(words_for(command, world, wrong.format(w=world))) == code
    assert_one_error(capfd.readouterr().err, *(fragment.format(w=world) for fragment in said))
    assert snapshot(world, tmp_path) == before


def test_the_good_twin_of_every_row_works(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wrong word the same command lines succeed: each row fails for its own reason."""
    monkeypatch.chdir(tmp_path)
    assert main(words_for(FIT, world, f"run_dir={tmp_path / 'run'}")) == 0
    assert main(words_for(GENERATE, world, f"out={tmp_path / 'new.mp4'}")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run", "new.mp4", "new.png"}


@pytest.mark.parametrize("model", ["svd", "svd_xt", "svd_xt_1_1"])
def test_weights_that_were_never_fetched_are_named_with_their_command(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], model: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    revision = "0" * 40
    geometry = ["model.frames=3", "model.height=64", "model.width=64", f"model.revision={revision}"]
    assert main(["fit", "config=style_lora", f"model={model}", f"data.source={world / 'data'}", *geometry]) == 4
    shown = capfd.readouterr().err
    name = {"svd": "img2vid", "svd_xt": "img2vid-xt", "svd_xt_1_1": "img2vid-xt-1-1"}[model]
    repository = f"stabilityai/stable-video-diffusion-{name}"
    assert_one_error(
        shown, f"{repository} at revision {revision} is not in the Hub cache {constants.HF_HUB_CACHE}", "hf download"
    )
    assert f"hf download {repository} --revision {revision}" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("argv", "fragment"), [(["fti"], "did you mean 'fit'?"), (["--fit"], "no such command")])
def test_unknown_commands(argv: list[str], fragment: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert_one_error(capfd.readouterr().err, fragment)


def test_calls_in_one_process_leave_no_trace(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment, arguments, here = dict(os.environ), list(sys.argv), Path.cwd()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for wrong in ("adapter.rank=0", f"data.source={world / 'empty'}", "adapter.pattern=.*attn7.*"):
        assert main(words_for(FIT, world, wrong)) != 0
    assert (dict(os.environ), sys.argv, Path.cwd()) == (environment, arguments, here)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
