"""A launcher and ranks without a model: who is named, which code is left, what is started again; nothing stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from svdtrain.launching.launcher import Launcher

RANK = [sys.executable, "-m", "tests.launching.rank"]
ROOT = Path(__file__).parents[2]


def launched(place: Path, *acts: list[str], restarts: int = 0, patience: float | None = 20.0) -> tuple[int, Launcher]:
    job = {"config": {"acts": acts, "place": str(place)}}
    launcher = Launcher(RANK, job, len(acts), patience)
    return launcher.run(restarts), launcher


def starts(place: Path) -> int:
    return len(list(place.glob("start-0-*")))


@pytest.fixture(autouse=True)
def _nobody_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN202
    monkeypatch.chdir(ROOT)
    yield
    assert list(tmp_path.glob("start-*"))
    assert not started_and_running(tmp_path)


def started_and_running(place: Path) -> list[int]:
    pids = [json.loads(file.read_text())[1] for file in place.glob("start-*")]
    return [pid for pid in pids if runs(pid)]


def runs(pid: int) -> bool:
    """Nobody may reap orphans here."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


OUTCOMES = {
    "all done": ([["done"], ["done"]], 0, ""),
    "one alone": ([["done"]], 0, ""),
    "an error is told once, as it was said": ([["error"], ["error"]], 3, "error: clip 'a' is damaged\nhint: mend it\n"),
    "that of another rank, too": ([["lost"], ["error"]], 3, "error: clip 'a' is damaged\nhint: mend it\n"),
    "a rank that is killed is named": (
        [["wait"], ["step=7 kill"]],
        75,
        r"error: rank 1 .* was killed by SIGKILL at step 7",
    ),
    "and not the one that noticed": ([["lost"], ["kill"]], 75, r"error: rank 1 .* was killed by SIGKILL"),
    "nor whom the launcher ended": ([["lost"], ["wait"]], 75, "error: rank lost another rank\n"),
    "nor where the other was told to stop": ([["lost"], ["late stop"]], 143, ""),
    "nor where the other's error comes late": (
        [["lost"], ["late error"]],
        3,
        "error: clip 'a' is damaged\nhint: mend it\n",
    ),
    "one that leaves in silence": ([["crash"], ["wait"]], 75, r"error: rank 0 .* left with exit code 9"),
    "a stop of one stops all": ([["wait"], ["stop"]], 143, ""),
    "an orderly stop": ([["stop"], ["done"]], 143, ""),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_the_rank_at_fault_is_told(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts, code, said = OUTCOMES[case]
    if ["wait"] in acts:  # where each speaks or leaves by itself, it has all its time
        monkeypatch.setattr("svdtrain.launching.launcher.GRACE", 1.0)
    found, _ = launched(tmp_path, *acts)
    errors = capsys.readouterr().err
    assert found == code, errors
    if "\n" in said or not said:
        assert errors == said
    else:
        assert re.match(said, errors)
        assert errors.count("error: ") == errors.count("hint: ") == 1
        assert all(len(line) <= 200 for line in errors.splitlines())


def signals(place: Path, ranks: int, after: float, *numbers: int) -> None:
    """To this process, when so many ranks are there; so many seconds before each."""

    def send() -> None:
        while len(list(place.glob("start-*"))) < ranks:
            time.sleep(0.05)
        for number in numbers:
            time.sleep(after)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


STILL: dict[str, tuple[str, str, list[str], float]] = {
    "one is frozen": ("wait", "freeze", ["rank 1"], 1.5),
    "all wait": ("wait", "wait", ["rank 0", "rank 1"], 1.5),
    "one never says anything": ("wait", "absent", ["rank 1"], 2.5),
    "none gets ready": ("loading", "loading", ["rank 0", "rank 1"], 2.5),
}
"""What the two do, who is named, and after how many seconds."""


@pytest.mark.parametrize("case", STILL)
def test_who_stands_still_is_named_and_the_job_ends(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svdtrain.launching.pulse.LOADING", 2.5)
    *acts, named, seconds = STILL[case]
    code, _ = launched(tmp_path, *([act] for act in acts), patience=1.5)
    errors = capsys.readouterr().err
    assert code == 75
    assert re.findall(r"(rank \d) \(process \d+ on ", errors) == named
    assert f"not moved for {seconds} s" in errors
    written = {file.name: file.read_text() for file in tmp_path.glob("stacks-rank-*.txt")}
    assert ("where each stood" in errors) == bool(written) == ("wait" in acts)
    if written:
        assert "rank.py" in written["stacks-rank-0.txt"], "it says where it stood"


def test_whoever_moves_is_not_held_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody else's business when that ends."""
    monkeypatch.setattr("svdtrain.launching.launcher.GRACE", 1.0)
    signals(tmp_path, 2, 2.0, signal.SIGUSR1)
    assert launched(tmp_path, ["moving"], ["freeze"], patience=0.75)[0] == 75
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_rank_that_is_not_yet_ready_answers_a_signal_when_it_is(
    number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signals(tmp_path, 2, 0.3, number)
    assert launched(tmp_path, ["newborn"], ["newborn"])[0] == code
    assert capsys.readouterr().err == ""


def test_a_second_signal_ends_ranks_that_do_not_hear_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svdtrain.launching.launcher.ONE_NOTICE", 0.1)
    monkeypatch.setattr("svdtrain.launching.launcher.AT_ONCE", 0.5)
    signals(tmp_path, 2, 0.3, signal.SIGTERM, signal.SIGINT)
    assert launched(tmp_path, ["deaf"], ["deaf"])[0] == 143
    assert capsys.readouterr().err == ""


def test_a_run_is_started_again_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = launched(tmp_path, ["step=3 kill", "step=5 kill", "done"], restarts=3)
    errors = capsys.readouterr().err
    assert code == 0, errors
    assert starts(tmp_path) == 3
    told = [json.loads((tmp_path / f"start-0-{index}").read_text())[0] for index in range(3)]
    assert told == [None, str(tmp_path), str(tmp_path)], "the second start resumes the first one's folder"
    assert [line[:8] for line in errors.splitlines()] == ["warning:"] * 2
    assert "restart 2 of 3" in errors


@pytest.mark.parametrize(
    ("acts", "restarts", "code", "started", "said"),
    [
        (["step=3 kill", "step=5 kill", "step=6 kill"], 2, 75, 3, "error: rank 0"),
        (["step=3 kill", "step=5 kill", "step=5 kill", "done"], 9, 75, 3, "two restarts died at step 5"),
        (["error"], 9, 3, 1, "is damaged"),
        (["stop"], 9, 143, 1, ""),
    ],
    ids=["none is left", "always the same step", "a mistake", "a stop"],
)
def test_or_not(
    acts: list[str], restarts: int, code: int, started: int, said: str,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert launched(tmp_path, acts, restarts=restarts)[0] == code
    assert starts(tmp_path) == started
    assert said in capsys.readouterr().err


def test_ranks_do_not_outlive_their_launcher(tmp_path: Path) -> None:
    job = {"config": {"acts": [["wait"], ["wait"]], "place": str(tmp_path)}}
    script = f"from svdtrain.launching.launcher import Launcher\nLauncher({RANK}, {job}, 2, None).run(0)"
    child = subprocess.Popen([sys.executable, "-c", script])
    while len(list(tmp_path.glob("start-*"))) < 2:
        time.sleep(0.05)
    time.sleep(0.3)
    child.kill()
    child.wait()
    until = time.monotonic() + 30
    while started_and_running(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
