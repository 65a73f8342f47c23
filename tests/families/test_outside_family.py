"""A family that another package brings: the how-to page's own, block by block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from svdtrain.families.registry import family_class
from svdtrain.foundation.errors import UsageError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-model-family.md"


def block(language: str) -> str:
    """The page's one block of a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return code


def test_a_family_from_outside_goes_through_the_commands(tmp_path: Path) -> None:
    """Installed as pip would: the entry point of the page's pyproject.toml."""
    (tmp_path / "toy_family.py").write_text(block("python"))
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "toy.yaml").write_text(block("yaml"))
    group, entry = re.findall(r'entry-points\."(.+?)"\]\n(.+)', block("toml"))[0]
    (tmp_path / "svdtrain_toy-1.0.dist-info").mkdir()
    (tmp_path / "svdtrain_toy-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: svdtrain-toy\nVersion: 1.0\n"
    )
    points = "[{}]\n{}\n".format(group, entry.replace('"', ""))
    (tmp_path / "svdtrain_toy-1.0.dist-info" / "entry_points.txt").write_text(points)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("bash")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "toy.mp4").stat().st_size > 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_family_that_nobody_brings_is_named() -> None:
    with pytest.raises(UsageError, match="no family 'toy'"):
        family_class("toy")
