"""Checkpoints: what comes out is what went in, and a folder is whole or absent."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from svdtrain.foundation.errors import ModelError, NumericError, SystemFault
from svdtrain.training.checkpoint import (
    MANIFEST,
    STATE,
    TENSORS,
    FolderCheckpoint,
    checkpoints,
    fault_of,
    newest_whole,
)

DEEP = "[" * 100_000

NESTED: dict[Any, Any] = {
    "state": {0: {"step": torch.tensor(3.0), "moment": torch.randn(4, 3)}, 1: {}},
    "betas": (0.9, 0.999),
    "nothing": None,
    "flags": [True, False],
    "worst": float("inf"),
    "least": float("-inf"),
    "empty": ([], (), {}),
    "text": 'with "quotes" and ü',
    "big": 2**62 + 1,
    "exact": 0.1 + 0.2,
    "half": torch.randn(2, 2).bfloat16(),
    "indices": torch.arange(3),
    "scalar": torch.tensor(7),
    "flipped": torch.arange(6).view(2, 3).t(),
}


def assert_same(left: Any, right: Any) -> None:  # noqa: ANN401
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


def test_a_round_trip_keeps_every_type_and_bit(tmp_path: Path) -> None:
    FolderCheckpoint().save_checkpoint(NESTED, tmp_path / "step-000001")
    assert_same(FolderCheckpoint().load_checkpoint(tmp_path / "step-000001"), NESTED)


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    whole = torch.zeros(4)
    FolderCheckpoint().save_checkpoint({"a": whole, "b": whole[1:3], "c": whole}, tmp_path / "one")
    back = FolderCheckpoint().load_checkpoint(tmp_path / "one")
    back["a"].fill_(1.0)
    assert float(back["b"].sum() + back["c"].sum()) == 0.0


def test_a_checkpoint_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "one"
    FolderCheckpoint().save_checkpoint(NESTED, folder)
    assert sorted(file.name for file in folder.iterdir()) == [MANIFEST, STATE, TENSORS]
    json.loads((folder / STATE).read_text())
    assert [path.name for path in folder.parent.iterdir()] == ["one"], "something was left behind"


@pytest.mark.parametrize("strange", [{1, 2}, object(), torch.nn.Linear(1, 1), b"bytes"])
def test_what_cannot_be_written_as_data_is_refused(tmp_path: Path, strange: object) -> None:
    with pytest.raises(TypeError, match="a checkpoint holds"):
        FolderCheckpoint().save_checkpoint({"deep": [{"er": strange}]}, tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "keep"),
    [
        *((file, keep) for file in (TENSORS, STATE, MANIFEST) for keep in (0, 9, -1, None)),
        *((file, "flip") for file in (TENSORS, STATE)),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_found(
    tmp_path: Path, file: str, keep: int | str | None
) -> None:
    folder = tmp_path / "checkpoints" / "step-000002"
    FolderCheckpoint().save_checkpoint({}, folder.with_name("step-000001"))
    FolderCheckpoint().save_checkpoint(NESTED, folder)
    assert newest_whole(tmp_path) == (folder, [])
    if keep is None:
        (folder / file).unlink()
    elif isinstance(keep, str):
        content = bytearray((folder / file).read_bytes())
        content[-2] ^= 1
        (folder / file).write_bytes(content)
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:keep])
    with pytest.raises(ModelError, match="step-000002: not a whole checkpoint"):
        FolderCheckpoint().load_checkpoint(folder)
    found, passed_over = newest_whole(tmp_path)
    assert found == folder.with_name("step-000001")
    assert [file in line or MANIFEST in line for line in passed_over] == [True]


@pytest.mark.parametrize("said", ["[]", "5", '{"files": {}}', '{"files": 5, "about": {}}', DEEP], ids=count())
def test_a_manifest_that_is_none_is_passed_over(tmp_path: Path, said: str) -> None:
    FolderCheckpoint().save_checkpoint(NESTED, tmp_path / "checkpoints/step-000001")
    (tmp_path / "checkpoints/step-000001" / MANIFEST).write_text(said)
    (tmp_path / "checkpoints/step-of-mine").mkdir()
    found, [line] = newest_whole(tmp_path)
    assert found is None
    assert f"step-000001 is passed over: {MANIFEST}: " in line


@pytest.mark.parametrize(
    "state",
    ["[1, 2", "{}", '{"dict": [[1]]}', '{"dict": 5}', '{"set": [1]}', '{"tensor": "99"}', DEEP],
    ids=count(),
)
def test_a_strange_state_is_named(tmp_path: Path, state: str) -> None:
    FolderCheckpoint().save_checkpoint(NESTED, tmp_path / "one")
    (tmp_path / "one" / STATE).write_text(state)
    said = json.loads((tmp_path / "one" / MANIFEST).read_text())
    said["files"][STATE] = {"sha256": hashlib.sha256(state.encode()).hexdigest(), "size": len(state)}
    (tmp_path / "one" / MANIFEST).write_text(json.dumps(said))
    assert not fault_of(tmp_path / "one")
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        FolderCheckpoint().load_checkpoint(tmp_path / "one")


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_failing_write_is_an_error_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    folder = tmp_path / "step-000001"
    FolderCheckpoint().save_checkpoint({"a": torch.zeros(3)}, folder)
    with disk_full_after(10_000), pytest.raises(SystemFault, match="step-000001: the checkpoint cannot be written"):
        FolderCheckpoint().save_checkpoint({"a": torch.ones(100_000)}, folder)
    assert_same(FolderCheckpoint().load_checkpoint(folder), {"a": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"], "something was left behind"


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemFault, match="cannot be written"):
        FolderCheckpoint().save_checkpoint({"a": 1}, tmp_path / "taken" / "step-000001")


def test_a_newer_save_takes_the_place_of_an_older(tmp_path: Path) -> None:
    for value in range(12):
        FolderCheckpoint().save_checkpoint({"a": value}, tmp_path / "checkpoints" / "step-000001")
        found, _ = newest_whole(tmp_path)
        assert found
        assert checkpoints(tmp_path) == [found]
        assert FolderCheckpoint().load_checkpoint(found) == {"a": value}


def test_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    for step in (1_000_000, 20, 999_999):
        FolderCheckpoint().save_checkpoint({}, tmp_path / "checkpoints" / f"step-{step:06d}")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000020", "step-999999", "step-1000000"]
    assert checkpoints(tmp_path / "nothing") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, value: float) -> None:
    with pytest.raises(NumericError, match="not saved, 1 of its tensors are not finite"):
        FolderCheckpoint().save_checkpoint({"a": torch.ones(3), "b": torch.tensor([0.0, value])}, tmp_path / "one")
    assert list(tmp_path.iterdir()) == []
