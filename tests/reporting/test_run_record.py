"""Run folders: new ones are never shared, and old ones are opened only when they are runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
import yaml

from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.reporting.run_record import RunRecord, newest_run

CONFIG = {"seed": 3, "data": {"source": "demo:style"}}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def create(run_dir: str | None = None, name: str = "style") -> RunRecord:
    return RunRecord.create(name, run_dir, CONFIG, ["config=style_lora"])


def test_a_new_run_says_what_it_is() -> None:
    record = create()
    assert record.run_dir.parent == Path("runs/style")
    said = json.loads((record.run_dir / "run.json").read_text())
    assert (said["name"], said["state"], said["overrides"]) == ("style", "running", ["config=style_lora"])
    assert {"svdtrain", "python", "torch", "diffusers", "peft"} <= set(said["versions"])
    assert yaml.safe_load((record.run_dir / "config.yaml").read_text()) == CONFIG


def test_changes_are_written_at_once_and_found_again() -> None:
    record = create()
    record.update(state="done", step=7)
    again = RunRecord.reopen(record.run_dir)
    assert (again.fields["state"], again.fields["step"], again.fields["name"]) == ("done", 7, "style")


def test_runs_of_one_moment_get_folders_of_their_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda _: create(), range(24)))
    assert len({record.run_dir for record in records}) == 24


def test_of_two_runs_that_want_one_folder_one_fails() -> None:
    together = Barrier(8)

    def attempt(folder: str) -> str:
        together.wait(timeout=60)
        try:
            return str(create(folder).run_dir)
        except UsageError as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        for folder in (f"mine-{number}" for number in range(40)):
            ends = list(pool.map(attempt, [folder] * 8))
            assert ends.count(folder) == 1
            assert all(end == folder or end.startswith(f"run_dir={folder}: ") for end in ends)


def test_processes_share_no_folder_either(tmp_path: Path) -> None:
    program = (
        "import sys; from svdtrain.reporting.run_record import RunRecord\n"
        "sys.stdin.readline(); print(RunRecord.create('style', None, {}, []).run_dir)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True, cwd=tmp_path, env=environment)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
    folders = {child.communicate(timeout=60)[0].strip() for child in children}
    assert len(folders) == 3
    assert all((tmp_path / folder / "run.json").is_file() for folder in folders)


@pytest.mark.parametrize("content", ["notes.txt", "run.json", ".hidden"])
def test_a_folder_that_holds_anything_is_refused_and_untouched(tmp_path: Path, content: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / content).write_text("mine")
    with pytest.raises(UsageError, match="run_dir=taken: "):
        create("taken")
    assert [(path.name, path.read_text()) for path in (tmp_path / "taken").iterdir()] == [(content, "mine")]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert create("empty").run_dir == Path("empty")


@pytest.mark.parametrize("run_dir", ["file", "file/inside"])
def test_a_file_in_the_way_is_named(tmp_path: Path, run_dir: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises((UsageError, SystemFault), match=f"run_dir={run_dir}: "):
        create(run_dir)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_where_runs_belong_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(SystemFault, match="runs/style: cannot be written"):
        create()


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "\x00", "[]", '{"state": 1', "[" * 100_000, '{"state":' * 600 + "1" + "}" * 600],
    ids=count(),
)
def test_what_is_no_run_cannot_be_reopened(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "odd").mkdir()
    if text is not None:
        (tmp_path / "odd" / "run.json").write_text(text)
    with pytest.raises(UsageError, match="resume=odd: it is no run folder"):
        RunRecord.reopen(Path("odd"))


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "&a [*a]", "a: !!int ''", "- " * 3000, "a: &a [" + "*b," * 30 + "]"], ids=count()
)
def test_settings_that_are_none_are_named(text: str) -> None:
    record = create()
    (record.run_dir / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match="config.yaml cannot be read") as caught:
        record.config()
    assert len(caught.value.message) < 200


def test_the_newest_run_is_the_last_started(tmp_path: Path) -> None:
    records = [create() for _ in range(12)]
    assert newest_run("style") == records[-1].run_dir
    (tmp_path / "runs" / "style" / "99999999-000000").mkdir()
    assert newest_run("style") == records[-1].run_dir, "a folder without run.json is no run"
    with pytest.raises(UsageError, match="there is no run in runs/other"):
        newest_run("other")
