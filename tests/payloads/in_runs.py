"""Payloads in run folders, to go on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from svdtrain.training.checkpoint import MANIFEST, STATE, TENSORS, _mark
from tests.payloads import makers
from tests.payloads.place import Rows, World

Change = Callable[[Path, Path, Path], object]
"""What is done to (the run's folder, its newest checkpoint) with a payload that makes a marker."""


def _vouched(saved: Path) -> None:
    """The manifest lists what is there now."""
    told = json.loads((saved / MANIFEST).read_text())
    told["files"] = {name: _mark(saved / name) for name in (TENSORS, STATE)}
    (saved / MANIFEST).write_text(json.dumps(told))


def _tensors(_: Path, saved: Path, marker: Path) -> None:
    (saved / TENSORS).write_bytes(makers.torch_file(marker))
    _vouched(saved)


def _state_pickled(_: Path, saved: Path, marker: Path) -> None:
    (saved / STATE).write_bytes(makers.pickled(marker))
    _vouched(saved)


def _state(*entries: object, whole: object = None) -> Change:
    """The checkpoint's state with more entries, or another."""

    def change(_: Path, saved: Path, __: Path) -> None:
        told = json.loads((saved / STATE).read_text())
        told["dict"] += entries
        (saved / STATE).write_text(json.dumps(whole or told))
        _vouched(saved)

    return change


def _lightning(folder: Path, saved: Path, marker: Path) -> None:
    shutil.rmtree(saved)
    saved.write_bytes(makers.torch_file(marker))
    (folder / "checkpoints/last.ckpt").write_bytes(makers.torch_file(marker))


def _distributed(_: Path, saved: Path, marker: Path) -> None:
    shutil.rmtree(saved)
    saved.mkdir()
    (saved / ".metadata").write_bytes(makers.pickled(marker))
    (saved / "__0_0.distcp").write_bytes(makers.torch_file(marker))


def _config(text: str) -> Change:
    return lambda folder, _, marker: (folder / "config.yaml").write_text(text.replace("{marker}", str(marker)))


def _table(*pairs: tuple[str, object]) -> object:
    return {"dict": [list(pair) for pair in pairs]}


CHANGES: dict[str, Change] = {
    "nothing": lambda *_: None,
    "tensors are a pickle": _tensors,
    "state is a pickle": _state_pickled,
    "state names code": _state(whole={"os.system": ["touch marker"]}),
    "hyper parameters with an instantiator": _state(
        ["hyper_parameters", _table(("_instantiator", "os.system"), ("_class_path", "os.system"))],
        ["hparams_name", "os.system"],
    ),
    "callbacks of its own": _state(["callbacks", _table(("os.system", _table(("a", 1))))]),
    "a Lightning checkpoint": _lightning,
    "a distributed checkpoint": _distributed,
    "config.yaml calls Python": _config('!!python/object/apply:os.system ["touch {marker}"]'),
    "config.yaml has a target": _config("optimizer: {_target_: os.system, command: touch {marker}}"),
    "config.yaml is a list": _config("[1, 2]"),
    "run.json is a pickle": lambda folder, _, marker: (folder / "run.json").write_bytes(makers.pickled(marker)),
}


def runs(world: World) -> Rows:
    rows: Rows = {}
    checkpoint = sorted((world.run / "checkpoints").iterdir())[-1].name
    for name, change in CHANGES.items():
        folder = world.out / f"foreign {name}"
        shutil.copytree(world.run, folder)
        change(folder, folder / "checkpoints" / checkpoint, world.marker(f"run {name}"))
        words = world.fit("trainer.max_steps=3", "adapter.targets=both")
        kept = [word for word in words if not word.startswith("run_dir=")]
        rows[f"resume: {name}"] = [*kept, f"resume='{folder}'"]
    return rows
