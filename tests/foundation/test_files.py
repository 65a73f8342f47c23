"""Writes are whole or absent, and the package's folders are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import packaged, replacing, replacing_files, write_atomic
from tests.power_loss import RANDOM_STATES, Disk


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new/a.txt", "one")
    write_atomic(tmp_path / "new/a.txt", b"two")
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("a.txt", "two")]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as partial:
            assert partial.suffix == ".mp4"
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.mp4", "old")]


def test_files_of_a_folder_replace_their_namesakes_or_none_does(tmp_path: Path) -> None:
    folder = tmp_path / "denoiser"

    def write(content: str, *, fail: bool) -> None:
        with replacing_files(folder) as staged:
            for name in ("a", "b"):
                (staged / name).write_text(content)
            if fail:
                raise OSError("disk full")

    write("old", fail=False)
    (folder / "c").write_text("another's")
    with pytest.raises(OSError, match="disk full"):
        write("half", fail=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "old", "b": "old", "c": "another's"}
    write("new", fail=False)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "new", "b": "new", "c": "another's"}
    assert list(tmp_path.iterdir()) == [folder]


def test_after_a_loss_of_power_it_is_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk, target = Disk(root), Path("new/folder/a.txt")
    with disk.watched((Path, "write_bytes")):
        write_atomic(root / target, "old")
        first = len(disk.states)
        write_atomic(root / target, "the new one")
    states = [(place / target).read_text() if (place / target).exists() else "" for place in disk.places(tmp_path)]
    assert set(states[:first]) == {"", "old"}
    assert set(states[first:]) == {"old", "the new one"}
    assert set(states[-RANDOM_STATES:]) == {"the new one"}


def test_packaged_folders() -> None:
    assert (packaged("configs") / "fit.yaml").is_file()
    with pytest.raises(SystemFault, match="nothing: no such folder in this installation"):
        packaged("nothing")
