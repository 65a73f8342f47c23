"""Writes are whole or absent, and the package's folders are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.files import packaged, replacing, write_atomic

if TYPE_CHECKING:
    from pathlib import Path


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


def test_packaged_folders() -> None:
    assert (packaged("configs") / "fit.yaml").is_file()
    with pytest.raises(SystemFault, match="nothing: no such folder in this installation"):
        packaged("nothing")
