"""A save that is killed at any of its writes, flushes, renames and removals leaves the old checkpoint or the new one.

So does a loss of power, after which only what was flushed is sure to be there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.training import checkpoint as module
from svdtrain.training.checkpoint import FolderCheckpoint, checkpoints, newest_whole, remove_staged, step_of
from tests.power_loss import Disk

KILLED, UNHURT = 9, 0


def saves(run: Path) -> dict[str, Callable[[], None]]:
    """The kinds of save: the first of a run, a newer step, the same step again, and an old one's removal."""
    folder = run / "checkpoints"
    content = {"a": torch.arange(1000.0), "b": [1, 2]}
    return {
        "first": lambda: FolderCheckpoint().save_checkpoint(content, folder / "step-000001"),
        "newer": lambda: FolderCheckpoint().save_checkpoint(content, folder / "step-000003"),
        "again": lambda: FolderCheckpoint().save_checkpoint(content, folder / "step-000002"),
        "purge": lambda: FolderCheckpoint().remove_checkpoint(folder / "step-000001"),
    }


def die_at(point: int, power: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps an operation of the system: at the given one, counted over all, the process is gone; half a write stays."""
    passed = [0]

    def wrap(operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            passed[0] += 1
            if passed[0] == point and not power:
                os._exit(KILLED)
            result = operation(*args, **kwargs)
            if passed[0] == point:
                written = [arg for arg in args if isinstance(arg, Path) and arg.is_file()]
                for file in written:
                    os.truncate(file, file.stat().st_size // 2)
                os._exit(KILLED)
            return result

        return counted

    return wrap


def killed(kind: str, run: Path, point: int, power: bool) -> int:
    """The exit code of a child that saves and dies at this point."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    wrap = die_at(point, power)
    for owner, name in ((os, n) for n in ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir")):
        setattr(owner, name, wrap(getattr(owner, name)))
    module.save_file = wrap(module.save_file)
    Path.write_text = wrap(Path.write_text)  # type: ignore[method-assign]
    try:
        saves(run)[kind]()
    finally:
        os._exit(UNHURT)


@pytest.mark.parametrize("power", [False, True], ids=["before", "after half of it"])
@pytest.mark.parametrize("kind", ["first", "newer", "again", "purge"])
def test_every_point_of_a_save_can_be_the_last(tmp_path: Path, kind: str, power: bool) -> None:
    base = tmp_path / "base"
    if kind != "first":
        for step in (1, 2):
            FolderCheckpoint().save_checkpoint({"step": step}, base / "checkpoints" / f"step-{step:06d}")
    (base / "checkpoints").mkdir(parents=True, exist_ok=True)
    for point in range(1, 100):
        run = tmp_path / str(point)
        shutil.copytree(base, run)
        code = killed(kind, run, point, power)
        found, _ = newest_whole(run)
        if kind != "first":
            assert found
            assert step_of(found) in {"newer": (2, 3), "again": (2,), "purge": (2,)}[kind]
            FolderCheckpoint().load_checkpoint(found)
        remove_staged(run)
        assert all(path.name.startswith("step-") for path in (run / "checkpoints").iterdir())
        if code == UNHURT:
            assert point > {"first": 9, "newer": 9, "again": 12, "purge": 3}[kind], "the points were not seen"
            assert checkpoints(run)
            return
    pytest.fail("a save of a hundred operations")


OLD_AND_NEW = {
    "first": (None, "step-000001"),
    "newer": ("step-000002", "step-000003"),
    "again": ("step-000002", "step-000002.1"),
    "purge": ("step-000002", "step-000002"),
}


def found_after_power_loss(kind: str, tmp_path: Path) -> tuple[set[str | None], set[str | None]]:
    """The newest whole checkpoint's name in every state that may be left while a save runs, and when it has returned."""
    root, run = tmp_path / "disk", Path("runs/mine")
    root.mkdir()
    for step in (1, 2) if kind != "first" else ():
        FolderCheckpoint().save_checkpoint({"step": step}, root / run / "checkpoints" / f"step-{step:06d}")
    disk = Disk(root)
    with disk.watched((module, "save_file"), (Path, "write_text")):
        saves(root / run)[kind]()
    while_it_runs = len(disk.states)
    disk.may_fail_here()
    names: list[str | None] = []
    for place in disk.places(tmp_path):
        found, _ = newest_whole(place / run)
        if found:
            FolderCheckpoint().load_checkpoint(found)
        names.append(found.name if found else None)
    return set(names[:while_it_runs]), set(names[while_it_runs:])


@pytest.mark.parametrize("kind", OLD_AND_NEW)
def test_a_loss_of_power_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path, kind: str) -> None:
    old, new = OLD_AND_NEW[kind]
    during, after = found_after_power_loss(kind, tmp_path)
    assert during == {old, new}
    assert after == {new}, "what has returned is there"


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [("newer", "sync"), ("first", "sync"), ("first", "make_folder")],
)
def test_a_flush_that_is_left_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, left_out: str
) -> None:
    plain = {"sync": lambda _: None, "make_folder": lambda path: path.mkdir(parents=True, exist_ok=True)}
    monkeypatch.setattr(module, left_out, plain[left_out])
    assert found_after_power_loss(kind, tmp_path)[1] != {OLD_AND_NEW[kind][1]}
