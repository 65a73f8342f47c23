"""Processes that hang, die or raise cost their own task only; a fault that is everybody's stops all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from svdtrain.foundation.errors import SystemFault
from svdtrain.preparation.pool import Failure, run_all
from tests.preparation.folders import environment


def work(task: str, alive: Callable[[], None]) -> str:
    """What a task says, happens."""
    if task.startswith("spin"):
        while True:
            pass
    if task == "abort":
        os.abort()
    if task == "leave":
        os._exit(3)
    if task == "raise":
        raise ValueError("odd\npicture")
    if task == "full":
        raise SystemFault("disk full", "make room")
    if task == "slow":
        for _ in range(28):
            time.sleep(0.5)
            alive()
    return task.upper()


def test_each_end_has_its_answer_and_the_others_go_on() -> None:
    tasks = ["a", "spin", "abort", "b", "leave", "raise", "slow", "c"]
    answers = dict(run_all(work, tasks, workers=2, deadline=12.0))
    assert answers.keys() == set(tasks)
    assert {task: answers[task] for task in ("a", "b", "c", "slow")} == {"a": "A", "b": "B", "c": "C", "slow": "SLOW"}
    assert answers["spin"] == Failure("hang", "no clip was finished in 12 s")
    assert answers["abort"] == Failure("crash", f"the process ended with exit code {-signal.SIGABRT}")
    assert answers["leave"] == Failure("crash", "the process ended with exit code 3")
    assert answers["raise"] == Failure("crash", "ValueError: odd picture")


def test_a_fault_of_the_machine_is_raised_with_its_hint() -> None:
    with pytest.raises(SystemFault) as caught:
        list(run_all(work, ["full", "spin"], workers=2, deadline=60))
    assert (caught.value.message, caught.value.hint) == ("disk full", "make room")


SPINNING = """
import signal
from svdtrain.preparation.pool import run_all
from tests.preparation.test_pool import work
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits it ignored
    list(run_all(work, ["spin one", "spin two"], workers=2, deadline=12.0))
"""


def children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(number: int, tmp_path: Path) -> None:
    (tmp_path / "spinning.py").write_text(SPINNING)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "spinning.py")], env=environment(), stderr=subprocess.DEVNULL
    )
    started: list[int] = []
    try:
        until = time.monotonic() + 30
        while len(started := children(process.pid)) < 3 and time.monotonic() < until:  # with the resource tracker
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(number)
        process.wait(20)
        until = time.monotonic() + 10
        while any(Path(f"/proc/{child}/exe").exists() for child in started) and time.monotonic() < until:
            time.sleep(0.05)
        left = [child for child in started if Path(f"/proc/{child}/exe").exists()]
    finally:
        for pid in (process.pid, *started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left
