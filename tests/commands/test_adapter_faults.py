"""Files with every planted fault, and every mistake with the toolbox: found, in one line, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svdtrain.adapters.layer import Layer
from svdtrain.adapters.targets import half_of
from svdtrain.cli import main
from tests.commands.adapters import random_layers, rewritten, save_as, save_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = save_world(tmp_path_factory.mktemp("faults"))
    plant(root)
    return root


Change = Callable[[dict[str, np.ndarray], dict[str, str]], None]


def drop_temporal(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
    for name in [name for name in tensors if half_of(name) == "temporal"]:
        del tensors[name]


def prefixed(prefix: str) -> Change:
    def change(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        metadata.clear()
        for name in list(tensors):
            tensors[prefix + name.removeprefix("unet.")] = tensors.pop(name)

    return change


def fill(number: float, ending: str) -> Change:
    def change(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
        names = [name for name in tensors if name.endswith(ending)]
        for name in names if number == 0 else names[:1]:
            tensors[name] = np.full_like(tensors[name], number)

    return change


def drop(ending: str) -> Change:
    def change(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
        for name in [name for name in tensors if name.endswith(ending)]:
            del tensors[name]

    return change


def add(name: str) -> Change:
    return lambda tensors, _: tensors.update({name: np.ones((2, 2), np.float32)})


def other_base(_: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    layout, numbers = json.loads(metadata["svdtrain.base_fingerprint"])
    metadata["svdtrain.base_fingerprint"] = json.dumps([layout, [n + 0.1 for n in numbers]])


def resettled(**changes: Any) -> Change:  # noqa: ANN401
    def change(_: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        values = json.loads(metadata["lora_adapter_metadata"])
        metadata["lora_adapter_metadata"] = json.dumps(
            values | {f"unet.{key}": value for key, value in changes.items()}
        )

    return change


PLANTED: dict[str, tuple[str, Change, str, str]] = {  # name: format, fault, what it is for, what is said of it
    "half of the modules": ("diffusers", drop_temporal, "diffusers", "8 of its 16 modules are missing"),
    "an extra key": ("diffusers", add("text_encoder.q.lora_A.weight"), "diffusers", "modules are not in the model"),
    "a key of no adapter": ("diffusers", add("unet.conv_in.bias"), "diffusers", "1 keys are no adapter's"),
    "peft's prefix in ComfyUI": ("diffusers", prefixed("base_model.model."), "comfyui", "rank and alpha"),
    "diffusers' names in ComfyUI": ("diffusers", prefixed("unet."), "comfyui", "comfyui does not read it whole"),
    "a foreign prefix": ("diffusers", prefixed("net.model."), "diffusers", "modules are not in the model"),
    "nan": ("comfyui", fill(np.nan, "lora_up.weight"), "comfyui", "not finite"),
    "infinity": ("diffusers", fill(np.inf, "lora_A.weight"), "diffusers", "not finite"),
    "alpha 1e9": ("comfyui", fill(1e9, ".alpha"), "comfyui", "alpha 1e+09 is outside"),
    "alpha 1e9 in the settings": ("diffusers", resettled(lora_alpha=1e9), "diffusers", "outside 0.0001 to 10000"),
    "wrong rank in the settings": ("diffusers", resettled(r=7), "diffusers", "rank 7 there, 4 in the file"),
    "dead": ("comfyui", fill(0, "lora_up.weight"), "comfyui", "every layer is dead"),
    "another base": ("comfyui", other_base, "comfyui", "this base has same shapes, other weights"),
    "half of a pair": ("comfyui", drop("lora_down.weight"), "comfyui", "'lora_A.weight' is missing"),
}


def plant(root: Path) -> None:
    (root / "planted").mkdir()
    for name, (start, change, *_) in PLANTED.items():
        rewritten(root / f"{start}.safetensors", root / "planted" / f"{name}.safetensors", change)
    good = (root / "diffusers.safetensors").read_bytes()
    (root / "planted" / "torn.safetensors").write_bytes(good[:-100])
    (root / "planted" / "empty.safetensors").write_bytes(b"")
    (root / "planted" / "pickle.bin").write_bytes(b"\x80\x02}q\x00.")
    wide = {
        module: Layer(layer.parts | {"lora_A.weight": np.repeat(layer.parts["lora_A.weight"], 2, -1)})  # type: ignore[operator]
        for module, layer in random_layers().items()
    }
    save_as(root / "planted" / "wide.safetensors", "diffusers", wide)


@pytest.mark.parametrize("name", PLANTED)
def test_check_finds_each_planted_fault(world: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    _, _, program, said = PLANTED[name]
    path = world / "planted" / f"{name}.safetensors"
    assert main(["adapter", "check", str(path), f"for={program}", "base=nano", "sample=false"]) == 4
    shown = capsys.readouterr()
    assert said in shown.err + shown.out, shown.err + shown.out
    assert len(shown.err.splitlines()) == 2


MISTAKES: list[tuple[str, list[str], int, str]] = [
    ("torn", ["info", "{w}/planted/torn.safetensors"], 4, "not a whole safetensors file"),
    ("empty", ["check", "{w}/planted/empty.safetensors"], 4, "not a whole safetensors file"),
    ("pickle", ["info", "{w}/planted/pickle.bin"], 4, "a pickle"),
    ("no file", ["info", "{w}/nothing.safetensors"], 4, "does not exist"),
    ("another size", ["info", "{w}/planted/wide.safetensors", "base=nano"], 4, "the model has"),
    ("no base", ["info", "{w}/run", "base={w}/nothing"], 4, "there is no such folder"),
    ("base not cached", ["info", "{w}/run", "base=some/model"], 4, "hf download some/model"),
    ("weight nan", ["merge", "{w}/run:nan", "out={t}/o"], 4, "'nan' is no weight"),
    ("weight a word", ["merge", "{w}/run:much", "out={t}/o"], 4, "'much' is no weight"),
    (
        "ranks apart",
        ["merge", "{w}/diffusers.safetensors", "{w}/second.safetensors", "method=linear", "out={t}/o.safetensors"],
        4,
        "has ranks [2, 4]",
    ),
    (
        "bases apart",
        ["merge", "{w}/comfyui.safetensors", "{w}/planted/another base.safetensors", "out={t}/o.safetensors"],
        4,
        "made for different models",
    ),
    (
        "kinds apart",
        ["merge", "{w}/comfyui.safetensors", "{w}/loha.safetensors", "out={t}/o.safetensors"],
        4,
        "no factors to join",
    ),
    ("unknown method", ["merge", "{w}/run", "method=sum", "out={t}/o"], 2, "method: 'sum' is not allowed"),
    ("output exists", ["convert", "{w}/run", "to=kohya", "out={w}/kohya.safetensors"], 4, "exists already"),
    ("output exists, peft", ["convert", "{w}/run", "to=peft", "out={w}/run/adapter"], 4, "exists already"),
    ("output of the wrong kind", ["convert", "{w}/run", "to=kohya", "out={t}/a.bin"], 2, "is a .safetensors file"),
    ("peft in one file", ["convert", "{w}/run", "to=peft", "out={t}/a.safetensors"], 2, "a folder of two files"),
    (
        "dora for ComfyUI",
        ["convert", "{w}/dora.safetensors", "to=comfyui", "out={t}/a.safetensors"],
        4,
        "adapter to-lora",
    ),
    (
        "loha for diffusers",
        ["convert", "{w}/loha.safetensors", "to=diffusers", "out={t}/a.safetensors"],
        4,
        "adapter to-lora",
    ),
    ("dora without base", ["to-lora", "{w}/dora.safetensors", "out={t}/a.safetensors"], 4, "base=FOLDER"),
    ("resize a dora", ["resize", "{w}/dora.safetensors", "rank=2", "out={t}/a.safetensors"], 4, "is a DoRA"),
    ("resize to nothing", ["resize", "{w}/run", "out={t}/a"], 2, "rank, keep: neither is set"),
    ("rank 0", ["resize", "{w}/run", "rank=0", "out={t}/a"], 2, "rank: 0 is not allowed"),
    ("keep nan", ["resize", "{w}/run", "keep=nan", "out={t}/a"], 2, "keep: nan is not allowed"),
    ("slice of nothing", ["slice", "{w}/run", "out={t}/a"], 2, "half, blocks, pattern: none is set"),
    ("slice without a match", ["slice", "{w}/run", "blocks=down_blocks.9", "out={t}/a"], 4, "none of its 16 modules"),
    ("slice, no expression", ["slice", "{w}/run", "pattern=((", "out={t}/a"], 2, "not a regular expression"),
    ("average of one", ["average", "{w}/run", "out={t}/a"], 4, "0 adapters in"),
    (
        "average of strangers",
        ["average", "{w}/diffusers.safetensors", "{w}/second.safetensors", "out={t}/a.safetensors"],
        4,
        "other modules, ranks",
    ),
    ("extract from itself", ["extract", "nano", "base=nano", "out={t}/a.safetensors"], 4, "none of its"),
    ("no block", ["targets", "config=style_lora", "adapter.blocks=[mid_blck]"], 4, "did you mean 'mid_block'?"),
    ("full", ["targets", "config=style_lora", "adapter=full"], 2, "adapter.kind: full trains every weight"),
    ("two files", ["info", "{w}/run", "{w}/run"], 2, "one file at a time"),
    ("no file given", ["info"], 2, "file: must be given"),
    ("no tool", ["inf", "{w}/run"], 2, "did you mean 'info'?"),
]


@pytest.mark.parametrize(("words", "code", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_every_mistake_is_one_line_and_writes_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    assert main(["adapter", *(word.format(w=world, t=tmp_path) for word in words)]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert said in "\n".join(lines)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    assert list(tmp_path.rglob("*")) == []
