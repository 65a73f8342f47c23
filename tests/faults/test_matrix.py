"""Every row of the table of faults, as `selftest faults` runs it; and a runner that sees each kind of broken promise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.selftest import runner
from svdtrain.selftest.children import Conditions
from svdtrain.selftest.faults.place import Kit, Place
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs
from svdtrain.selftest.faults.table import TABLE


@pytest.fixture(scope="module")
def kit() -> Iterator[Kit]:
    with runner.short_folder() as root:
        kit = Kit(root / "k")
        yield kit
        kit.close()


def row_id(fault: Fault) -> str:
    return f"{fault.number:02d} {fault.name}"


@pytest.mark.parametrize("fault", TABLE, ids=row_id)
def test_the_fault_is_answered_as_promised(kit: Kit, fault: Fault) -> None:
    result = runner.tried(fault, kit)
    if result.state == "skipped":
        pytest.skip(result.why)
    assert result.state == "ok", f"{result.why}\n{result.said}"


def test_the_rows_are_numbered_as_the_design_numbers_them() -> None:
    assert [fault.number for fault in TABLE] == list(range(1, 55))


def planted(*runs: Run, said: str = "", reads: str = "mine.txt") -> Callable[[Place], Runs]:
    def made(place: Place) -> Runs:
        place.write("mine.txt", "mine")
        for run in runs:
            _ = yield run  # a tuple, yielded from, takes no answers
        (place.folder / reads).read_text()
        if said:
            raise Broken(said)

    return made


GOOD = Run(["fti"], 2, ("fti: no such command",))
HAPPY = Run(["--version"], 0, ("svdtrain ",))


def speaks(code: str) -> Conditions:
    """A command that does something besides."""
    return Conditions(stand_in=f"import sys\n{code}\n")


TALKS_ON = "sys.exit(sys.stderr.write('error: fti ' + 'x' * 220 + '\\n') and 2)"
TRACEBACK = "sys.stderr.write('warning: Traceback (most recent call last):\\n')"
PLANTED: dict[str, tuple[Callable[[Place], Runs], str]] = {
    "kept": (planted(GOOD, HAPPY), ""),
    "wrong code": (planted(Run(["fti"], 3, ("fti",))), "left with 2, not 3: fti: no such command"),
    "no failure": (planted(Run(["--version"], 2)), "left with 0, not 2: it said nothing"),
    "killed": (planted(Run(["fti"], 2, under=speaks("import os; os.kill(os.getpid(), 9)"))), "left with -9, not 2"),
    "two lines": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("sys.stderr.write('error: one more\\n')"))),
        "printed 2 error lines, not 1",
    ),
    "an error of a run that ends well": (
        planted(Run(["--version"], 0, under=speaks("sys.stderr.write('error: a lie\\n')"))),
        "printed 1 error lines, not 0",
    ),
    "no line": (
        planted(Run(["--version"], 4, under=speaks("raise SystemExit(4)"))),
        "printed 0 error lines, not 1",
    ),
    "too long": (planted(Run(["fti"], 2, ("fti",), under=speaks(TALKS_ON))), "printed a line of 2"),
    "a traceback": (planted(Run(["fti"], 2, ("fti",), under=speaks(TRACEBACK))), "showed a traceback"),
    "noise": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("sys.stderr.write('by the way\\n')"))),
        "printed besides: by the way",
    ),
    "the key is not named": (planted(Run(["fti"], 2, ("data.source",))), "did not say 'data.source': fti"),
    "a changed file": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("open('mine.txt', 'a').write('x')"))),
        "changed mine.txt",
    ),
    "a new file": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("open('new.txt', 'w').write('x')"))),
        "changed new.txt",
    ),
    "a removed file": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("__import__('os').remove('mine.txt')"))),
        "changed mine.txt",
    ),
    "another file than may change": (
        planted(Run(["fti"], 2, ("fti",), ("new.txt",), speaks("open('new.txt', 'w'); open('mine.txt', 'w')"))),
        "changed mine.txt",
    ),
    "a hang": (
        planted(Run(["fti"], 2, ("fti",), under=speaks("import time; time.sleep(60)"), seconds=0.5)),
        "hangs: no end in 0.5 s",
    ),
    "a promise of the row's own": (planted(GOOD, said="the old file is gone"), "the old file is gone"),
    "a row that fails itself": (planted(GOOD, reads="no.txt"), "FileNotFoundError"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_promise_is_seen(kit: Kit, name: str) -> None:
    runs, why = PLANTED[name]
    result = runner.tried(Fault(1, f"planted {name}", runs), kit)
    assert (result.state, why in result.why) == ("FAILED" if why else "ok", True), result.why
    assert bool(result.why) == bool(why)


def test_a_row_that_cannot_be_tried_is_skipped_and_says_why(kit: Kit) -> None:
    result = runner.tried(Fault(1, "planted", planted(GOOD), lambda: "no such disk"), kit)
    assert (result.state, result.why, result.answers) == ("skipped", "no such disk", [])


def test_the_command_prints_counts_writes_and_fails_with_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        Fault(1, "good", planted(GOOD)),
        Fault(2, "bad", planted(Run(["fti"], 3))),
        Fault(3, "elsewhere", planted(), lambda: "no GPU"),
    )
    monkeypatch.setattr(runner, "TABLE", rows)
    assert main(["selftest", "faults", "jobs=1", f"out={tmp_path / 'new'}"]) == 6
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said[:3]] == [["1", "good"], ["2", "bad"], ["3", "elsewhere"]]
    assert "left with 2, not 3" in said[1]
    assert said[3] == "1 of 3 faults answered as promised; 1 could not be tried here"
    told = json.loads((tmp_path / "new" / "faults.json").read_text())["rows"]
    assert [row["state"] for row in told] == ["ok", "FAILED", "skipped"]
    assert told[0]["answers"] == [
        {"command": "fti", "code": 2, "line": "error: fti: no such command; did you mean 'fit'?"}
    ]
    assert main(["selftest", "faults", "rows=1"]) == 0
    assert main(["selftest", "faults", "rows=1,9"]) == 2
    assert "rows: there is no row 9" in capsys.readouterr().err
    assert main(["selftest", "faults", f"out={tmp_path}"]) == 2
    assert "taken" in capsys.readouterr().err
