"""A wheel, built and installed into an empty environment, works from an empty folder: nothing leans on the checkout.

Only svdtrain itself is installed there. Its dependencies are lent by the environment of the tests; that they are all
declared is a test of its own.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, with nothing of this process's Python about it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of an environment that holds the wheel alone."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", "import svdtrain; print(svdtrain.__file__)", cwd=folder).strip()
    assert Path(where).is_relative_to(site)
    return folder / "bin" / "svdtrain"


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"svdtrain", f"svdtrain-{wheel.name.split('-')[1]}.dist-info"}
    for folder, pattern in (("configs", "*.yaml"), ("datasets", "*.tar"), ("svdtrain/assets", "*.safetensors")):
        expected = {
            path.relative_to(ROOT).as_posix().removeprefix("svdtrain/") for path in (ROOT / folder).rglob(pattern)
        }
        assert expected
        assert {f"svdtrain/{name}" for name in expected} <= set(names)


def test_what_is_packaged_stays_small() -> None:
    for folder, megabytes in [(ROOT / "svdtrain" / "assets", 40), *((d, 3) for d in (ROOT / "datasets").iterdir())]:
        assert sum(path.stat().st_size for path in folder.rglob("*")) <= megabytes * 1e6, folder


def test_the_version_is_one(program: Path, wheel: Path, tmp_path: Path) -> None:
    assert run(program, "--version", cwd=tmp_path).split() == ["svdtrain", wheel.name.split("-")[1]]


def test_help_and_configs_are_found_from_an_empty_folder(program: Path, tmp_path: Path) -> None:
    assert "fit" in run(program, "--help", cwd=tmp_path)
    assert "demo:style" in run(program, "fit", "config=style_lora", "--cfg", "job", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_fit_runs(program: Path, tmp_path: Path) -> None:
    run(program, "fit", "config=style_lora", "debug=quick", "name=installed", cwd=tmp_path)
    assert len(list(tmp_path.glob("runs/installed/*/adapter/adapter_model.safetensors"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_every_import_is_declared() -> None:
    """torch is not a dependency because something else needs it, but because we say so."""
    declared = [Requirement(line).name for line in PROJECT["dependencies"]]
    extras = ("ray", "sweep", "tensorboard", "trackio")
    declared += [Requirement(line).name for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    providers = packages_distributions()
    used: set[str] = set()
    for path in (ROOT / "svdtrain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.split(".")[0])
    used -= {"svdtrain", *sys.stdlib_module_names}
    assert "torch" in used
    undeclared = {
        name for name in used if not {_flat(d) for d in providers.get(name, [name])} & {_flat(d) for d in declared}
    }
    assert undeclared == set()


def _flat(name: str) -> str:
    return name.lower().replace("_", "-")


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    pinned = {_flat(pin.name): str(pin.specifier)[2:] for pin in pins}
    extras = PROJECT["optional-dependencies"]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *extras["tensorboard"], *extras["dev"]]):
        if wanted.name != PROJECT["name"]:
            assert wanted.specifier.contains(pinned[_flat(wanted.name)]), wanted
