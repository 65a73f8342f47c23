"""A disk that is too full, and a folder that cannot be written, are told before anything is begun."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.space import refuse_full, refuse_unwritable


@pytest.mark.parametrize("folder", ["", "not/there/yet"])
def test_more_than_is_free_is_refused_with_both_figures(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    refuse_full(place, shutil.disk_usage(tmp_path).free // 2)
    with pytest.raises(SystemFault) as caught:
        refuse_full(place, 10**18, "fewer trainer.keep_checkpoints")
    assert re.fullmatch(rf"need 1000000000\.0 GB, [\d.]+ [GM]B free at {place}", caught.value.message)
    assert caught.value.hint == "fewer trainer.keep_checkpoints"


@pytest.mark.parametrize("folder", ["", "not/there/yet"])
def test_a_probe_leaves_nothing(tmp_path: Path, folder: str) -> None:
    refuse_unwritable(tmp_path / folder)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SystemFault, match=rf"{tmp_path}/runs cannot be written: Not a directory"):
        refuse_unwritable(tmp_path / "runs")
    with pytest.raises(SystemFault, match=rf"{tmp_path}/runs/a cannot be written: Not a directory"):
        refuse_unwritable(tmp_path / "runs" / "a")


PROBE = """
import resource, sys
from pathlib import Path
from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.space import refuse_unwritable
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    refuse_unwritable(Path(sys.argv[1]))
except SystemFault as fault:
    print(fault.message)
"""


def test_no_room_for_a_single_file(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", PROBE, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path} cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may write anywhere: for a while, someone else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_no_right_to_write(mode: int, nobody: None) -> None:  # noqa: ARG001
    with tempfile.TemporaryDirectory() as place:  # of nobody, too: pytest's own folders are closed to others
        folder = Path(place) / "shut"
        folder.mkdir()
        folder.chmod(mode)
        for inside in ("", "runs/a"):
            with pytest.raises(SystemFault, match=rf"{folder / inside} cannot be written: Permission denied"):
                refuse_unwritable(folder / inside)
        folder.chmod(0o755)
