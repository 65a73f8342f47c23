"""The command line as a program: help, version, exit codes, and how quickly it may answer."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import svdtrain
from svdtrain import cli

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("torch", "numpy", "pytorch_lightning", "lightning", "diffusers", "transformers", "peft", "decord", "av", "cv2")

FAILING = """
class OutOfMemoryError(RuntimeError):
    pass

def run(config, overrides):
    if config.name == "interrupt":
        raise KeyboardInterrupt
    if config.name == "memory":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\\nmore words")
    if config.name == "ram":
        raise MemoryError
    if config.name == "bug":
        raise ValueError("tensor sizes\\ndiffer")
    from svdtrain.foundation import errors
    if config.name == "data":
        raise errors.DataError("a.tar: torn", "make it again")
    if config.name == "numbers":
        raise errors.NumericError("loss: nan")
    return 143 if config.name == "stopped" else None
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_command.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = cli.Command("fit", "failing_command", "fit", "schema.FitConfig", "fails", ())
    monkeypatch.setattr(cli, "COMMANDS", (row,))


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("name", "code", "lines"),
    [
        ("fine", 0, []),
        ("stopped", 143, []),
        ("data", 3, ["error: a.tar: torn", "hint: make it again"]),
        ("numbers", 6, ["error: loss: nan"]),
        ("memory", 5, ["error: out of memory: CUDA out of memory. Tried to allocate 2 GiB", "hint: less at once"]),
        ("ram", 5, ["error: out of memory: no more memory", "hint: less at once"]),
        ("bug", 1, ["error: unexpected ValueError: tensor sizes", "hint: run again with --debug"]),
        ("interrupt", 130, ["error: interrupted"]),
    ],
)
def test_every_end_has_its_words_and_exit_code(
    name: str, code: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", "config=style_lora", f"name={name}"]) == code
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(start) for line, start in zip(shown, lines, strict=True))


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(("name", "code"), [("bug", 1), ("data", 3)])
def test_debug_shows_where(name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--debug", "fit", "config=style_lora", f"name={name}"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "failing_command.py" in shown


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command.name} " in shown for command in cli.COMMANDS)


def test_help_of_a_command_lists_what_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "style_lora       Teach a look" in shown
    assert "nano, svd, svd_xt, svd_xt_1_1" in shown
    assert shown.count("\n  svdtrain fit ") == 5
    assert "--config-dir" in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_examples_of_the_help_are_valid(command: cli.Command) -> None:
    """Their keys and options exist (values such as folders are the reader's)."""
    from svdtrain.config import overrides

    for example in command.examples:
        words = example.partition("#")[0].split()
        if "--config-dir" not in words:
            request = overrides.parse(words, command.config_name, command.bare, command.settings())
            for override in request.parsed:
                overrides.check_override(override, request, command.settings())


@pytest.mark.parametrize("argv", [["--version"], ["fit", "--version"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"svdtrain {svdtrain.__version__}\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fti", "config=style_lora"]) == 2
    assert capsys.readouterr().err == "error: fti: no such command; did you mean 'fit'?\n"


def test_help_and_config_errors_import_nothing_heavy() -> None:
    lines = [[], ["fit", "--help"], ["fit", "config=stle_lora"], ["fit", "config=style_lora", "adapter.rank=0"]]
    lines += [["fit", "config=style_lora", "--cfg", "job"], ["generate", "adapter=x"], ["fti"], ["--version"]]
    program = f"import sys; from svdtrain.cli import main\nfor line in {lines!r}: main(line)\n"
    program += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "did you mean 'style_lora'?" in done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_is_the_console_script(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "svdtrain", "--help"], capture_output=True, text=True, check=True)
    cli.main(["--help"])
    assert done.stdout == capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("svdtrain fit config=sty", "config=style_lora"),
        ("svdtrain fi", "fit generate"),
        ("svdtrain fit model=na", "nano"),
    ],
)
def test_completion_knows_the_commands(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr("sys.argv", ["svdtrain", "-sc", "query=bash"])
    assert cli.main(["-sc", "query=bash"]) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("streams", "unbuffered", "code", "said"),
    [
        ("", "", 0, ""),
        ("2>&-", "", 0, ""),
        (">&-", "", 0, ""),
        (">/dev/full", "", 120, ""),
        (">/dev/full", "1", 5, "error: what was written: no space left\nhint: make room, or write elsewhere\n"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_fault_of_ours(
    streams: str, unbuffered: str, code: int, said: str
) -> None:
    """120: as Python itself leaves, when the last of a buffer cannot be written."""
    done = subprocess.run(
        f"{sys.executable} -m svdtrain --version {streams}",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)
