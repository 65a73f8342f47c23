"""On a local Ray the same work gives the same bytes, and a task that dies costs itself only."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.foundation.errors import SystemFault
from svdtrain.preparation.pool import Failure
from svdtrain.preparation.ray_pool import run_all_on_ray
from tests.preparation.folders import bytes_of, save_folder, words
from tests.preparation.test_pool import work

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def test_each_end_has_its_answer() -> None:
    answers = dict(run_all_on_ray(work, ["a", "spin", "abort", "raise"], workers=2, deadline=20, address=None))
    assert answers["a"] == "A"
    assert answers["spin"] == Failure("hang", "no clip was finished in 20 s")
    assert answers["abort"] == Failure("crash", "the process ended with exit code -6")
    assert answers["raise"] == Failure("crash", "ValueError: odd picture")
    with pytest.raises(SystemFault) as caught:
        list(run_all_on_ray(work, ["full"], workers=1, deadline=20, address=None))
    assert caught.value.hint == "make room"


def test_a_dataset_has_the_same_bytes(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "in", videos=2)
    assert main(words(folder, tmp_path / "local")) == 0
    assert main(words(folder, tmp_path / "ray", "executor=ray", "workers=2")) == 0
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "local")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_no_cluster_is_one_line(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`auto` is not among them: it would find the Ray of a test that runs beside this one."""
    folder = save_folder(tmp_path / "in", videos=2)
    assert main(words(folder, tmp_path / "out", "executor=ray", f"ray_address='{address}'")) == 5
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert lines[0].startswith(f"error: ray_address={address}: no Ray answers")
    assert len(lines) == 2
