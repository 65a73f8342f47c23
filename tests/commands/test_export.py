"""export end to end on the embedded model: every target proved, nothing half done, nothing private, nothing overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors import safe_open

from svdtrain.adapters.container import Container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import AdapterFile, read_adapter
from svdtrain.adapters.layer import Layer, lora
from svdtrain.adapters.layout import BaseWeights
from svdtrain.adapters.names import motion_lora_stem
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.cli import main
from tests.commands.adapters import NANO, random_layers, save_as, save_run
from tests.tiny_pipelines import save_tiny_animatediff

QUICK = ["steps=2", "device=cpu"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    save_run(root / "run")
    (root / "run" / "before_after.mp4").write_bytes(b"a video")
    for kind in ("dora", "loha", "lokr"):
        save_as(root / kind / f"{kind}.safetensors", "peft", random_layers(kind))
    zero = {m: Layer({n: p * 0 for n, p in layer.parts.items()}) for m, layer in random_layers().items()}
    save_run(root / "zero", zero)
    huge = {m: Layer({n: p * 1e4 for n, p in layer.parts.items()}) for m, layer in random_layers().items()}
    save_run(root / "huge", huge)
    (root / "taken").mkdir()
    (root / "taken" / "style_lora_kohya.safetensors").write_text("mine")
    return root


def test_every_target_is_proved_and_put_in_its_place(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["to=diffusers,comfyui,peft,kohya,merged", "dtype=fp32", "card=true", "consent=Our own clips."]
    assert main(["export", f"adapter={world}/run", *words, f"out={tmp_path}/out", *QUICK]) == 0
    shown = capsys.readouterr().out
    for to in ("diffusers", "comfyui", "peft", "kohya", "merged"):
        assert f"{to:<11} differs from memory by" in shown
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {f"style_lora_{to}.safetensors" for to in ("diffusers", "comfyui", "kohya")}
    assert names == files | {"style_lora_peft", "style_lora_merged", "README.md", "samples"}
    whole = {module: layer.delta() for module, layer in read_adapter(world / "run", NANO.layout).layers.items()}
    for name in [*files, "style_lora_peft"]:
        layers = read_adapter(tmp_path / "out" / name, NANO.layout).layers
        assert {layer.scale for layer in layers.values()} == {1.0}
        assert max(float(abs(layers[m].delta() - delta).max()) for m, delta in whole.items()) == 0
    merged = BaseWeights.of_pipeline(tmp_path / "out" / "style_lora_merged")
    for module, delta in whole.items():
        assert np.allclose(merged.weight(module), NANO.weight(module) + delta, atol=1e-6)
    told = [path.read_text() for path in (tmp_path / "out" / "style_lora_merged").rglob("*.json")]
    assert not [text for text in told if "_name_or_path" in text or str(NANO.folder) in text]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "Our own clips." in card.text
    assert (tmp_path / "out" / "samples" / "before_after.mp4").read_bytes() == b"a video"


def test_the_header_says_what_it_is_and_nothing_private(world: Path, tmp_path: Path) -> None:
    found: dict[str, dict[str, str]] = {}
    for level in ("minimal", "full", "none"):
        out = tmp_path / level
        words = ["to=comfyui", f"metadata={level}", "verify=false", "title=woodcut"]
        assert main(["export", f"adapter={world}/run", *words, f"out={out}"]) == 0
        with safe_open(out / "woodcut_comfyui.safetensors", "np") as file:
            found[level] = file.metadata()
    minimal = found["minimal"]
    assert minimal["format"] == "pt"
    assert minimal["modelspec.architecture"] == "stable-video-diffusion-img2vid-v1/lora"
    assert minimal["modelspec.title"] == "woodcut"
    assert minimal["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert minimal["modelspec.resolution"] == "64x64"
    assert len(minimal["modelspec.hash_sha256"]) == 66
    assert (minimal["ss_network_dim"], minimal["ss_network_alpha"]) == ("4", "4")
    told = {
        "recipe": "style_lora",
        "fps": "7",
        "motion_bucket": "20-200",
        "dataset": "abc",
        "base": "nano",
        "steps": "120",
    }
    assert {name: minimal[f"svdtrain.{name}"] for name in told} == told
    assert json.loads(minimal["svdtrain.results"])["held_out_loss_ratio"] == 0.42
    assert "secret" not in str(minimal)
    assert "secret" in found["full"]["svdtrain.data_source"]
    assert found["none"] == {"format": "pt"}


def test_a_header_does_not_choose_where_files_go(tmp_path: Path) -> None:
    file = save_as(tmp_path / "good.safetensors", "diffusers", recipe="../../evil", results="garbage")
    words = [f"adapter={file}", "to=kohya", "verify=false", "card=true", f"out={tmp_path}/deep/er/out"]
    assert main(["export", *words]) == 0
    assert [path.name for path in (tmp_path / "deep/er/out").glob("*.safetensors")] == ["good_kohya.safetensors"]
    assert not list(tmp_path.glob("*evil*"))


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_dtypes(world: Path, tmp_path: Path, dtype: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["to=comfyui,merged", f"dtype={dtype}", "strength=0.5/1"]
    assert main(["export", f"adapter={world}/run", *words, f"out={tmp_path}/out", *QUICK]) == 0
    file = Container(tmp_path / "out" / "style_lora_comfyui.safetensors")
    assert {entry.dtype for entry in file.entries.values() if entry.shape} == {kind}
    merged = Container(tmp_path / "out" / "style_lora_merged" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {entry.dtype for entry in merged.entries.values()} == {kind}
    assert "levels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("dora", "diffusers,peft,merged"),
        ("loha", "comfyui,kohya,peft,merged"),
        ("lokr", "comfyui,diffusers,peft,merged"),
    ],
)
def test_other_kinds_are_proved_where_a_program_reads_them(
    world: Path, tmp_path: Path, kind: str, targets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"adapter={world}/{kind}/{kind}.safetensors", f"to={targets}", "dtype=fp32", f"out={tmp_path}/out", *QUICK]
    assert main(["export", *words]) == 0, capsys.readouterr().err


def test_a_motion_lora_is_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_tiny_animatediff(tmp_path / "base")
    layout, random = BaseWeights.of_pipeline(base).layout, np.random.default_rng(0)
    layers: dict[str, Layer] = {}
    for module, (out, into) in ((m, s) for m, s in layout.shapes.items() if motion_lora_stem(m)):
        down, up = random.standard_normal((2, into)), 0.1 * random.standard_normal((out, 2))
        layers[module] = Layer(lora(down.astype(np.float32), up.astype(np.float32)).parts, scale=1.5)
    file = AdapterFile(tmp_path, layers, AdapterInfo(), layout=layout)
    path = write_adapter(tmp_path / "zoom.safetensors", file, "diffusers", "fp32")
    model = ["model=animatediff", f"model.source={base}", "model.height=32", "model.width=32", "model.frames=4"]
    words = ["to=motion_lora", "dtype=fp32", "card=true", f"out={tmp_path}/out"]
    assert main(["export", f"adapter={path}", *model, *words, *QUICK]) == 0
    assert "motion_lora differs from memory by" in capsys.readouterr().out
    made = read_adapter(tmp_path / "out" / "zoom_motion_lora.safetensors", layout)
    assert (made.format, made.layers.keys()) == ("motion_lora", layers.keys())
    assert "ComfyUI" in ModelCard.load(tmp_path / "out" / "README.md").text


MISTAKES: list[tuple[str, list[str], int, str]] = [
    ("nothing changes", ["adapter={w}/zero", "to=diffusers"], 4, "the adapter changes nothing at all"),
    ("too large for fp16", ["adapter={w}/huge", "to=comfyui", "dtype=fp16"], 4, "dtype=fp32 keeps every bit"),
    ("dora for ComfyUI", ["adapter={w}/dora/dora.safetensors", "to=comfyui"], 4, "adapter to-lora"),
    ("loha for diffusers", ["adapter={w}/loha/loha.safetensors", "to=diffusers"], 4, "diffusers reads no LoHa"),
    ("no motion modules", ["adapter={w}/run", "to=motion_lora"], 4, "is of a model that has no motion modules"),
    ("lokr for AnimateDiff", ["adapter={w}/lokr/lokr.safetensors", "to=motion_lora"], 4, "programs read no LoKr"),
    ("one of two fails", ["adapter={w}/dora/dora.safetensors", "to=peft,comfyui"], 4, "adapter to-lora"),
    ("exists", ["adapter={w}/run", "to=kohya", "out={w}/taken"], 4, "style_lora_kohya.safetensors exists already"),
    ("out is a file", ["adapter={w}/run", "to=kohya", "out={w}/run/run.json"], 2, "it is a file"),
    ("another base", ["adapter={w}/run", "to=kohya", "model.source={m}"], 4, "the model has [32, 32]"),
    ("no such target", ["adapter={w}/run", "to=a1111"], 2, "to: 'a1111' is not allowed"),
    ("strength nan", ["adapter={w}/run", "to=merged", "strength=nan"], 2, "strength: nan is not allowed"),
    ("no adapter", ["adapter={w}/nothing", "to=kohya"], 4, "does not exist"),
    ("a title that is a path", ["adapter={w}/run", "to=kohya", "title=../x"], 2, "title: '../x' is not allowed"),
]


@pytest.mark.parametrize(("words", "code", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    from tests.tiny_models import save_tiny_svd

    if any("{m}" in word for word in words):
        save_tiny_svd(tmp_path / "model")
    before = {path for folder in (world, tmp_path) for path in folder.rglob("*")}
    capsys.readouterr()
    given = [word.format(w=world, m=tmp_path / "model") for word in words]
    given += [] if any(word.startswith("out=") for word in given) else [f"out={tmp_path}/out"]
    assert main(["export", *given, *QUICK]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert said in "\n".join(lines)
    assert len(lines) <= 2
    assert {path for folder in (world, tmp_path) for path in folder.rglob("*")} == before


def test_a_killed_export_leaves_no_file_under_its_name(world: Path, tmp_path: Path) -> None:
    words = ["export", f"adapter={world}/run", "to=diffusers,comfyui", f"out={tmp_path}/out", "steps=4"]
    export = subprocess.Popen([sys.executable, "-m", "svdtrain", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.partial-*/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    export.send_signal(signal.SIGKILL)
    assert export.wait() == -signal.SIGKILL
    assert [path.name[:9] for path in (tmp_path / "out").iterdir()] == [".partial-"]
    again = ["export", f"adapter={world}/run", "to=diffusers", f"out={tmp_path}/out", "verify=false"]
    assert main(again) == 0
    assert (tmp_path / "out" / "style_lora_diffusers.safetensors").is_file()
