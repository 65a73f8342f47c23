"""One run that gets one signal in one phase: what must be there when it has ended. For the tests, and for scripts/soak."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from svdtrain.training.checkpoint import checkpoints, fault_of, step_of
from tests.tiny_runs import fit_words

HERE = Path(__file__).resolve().parent
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}
WHOM = {"first": "0", "second": "1", "both": "0,1", "launcher": ""}
EARLY = ("importing", "loading")
"""Phases in which there is nothing to save."""
PHASES = ("loading", "first look", "step", "validation", "sampling", "save")
PATIENCE = 240.0
"""Seconds after which a run hangs, on a machine that others use too."""
EVERY = 2
"""Steps between validations, samples and saves."""


@dataclass(frozen=True)
class Case:
    """Which signal, to whom (of two ranks; `alone`: a run of one), and when."""

    number: signal.Signals
    whom: str
    phase: str

    def __str__(self) -> str:
        return f"{self.number.name} {self.whom} {self.phase}"


CASES = [
    *(Case(number, whom, phase) for number in CODES for whom in WHOM for phase in PHASES),
    *(Case(number, "alone", phase) for number in CODES for phase in ("importing", *PHASES)),
]


def stop(case: Case, model: Path, dataset: Path, run: Path) -> str:
    """What is wrong with how the run ended; empty where all is as promised."""
    ranks = 1 if case.whom == "alone" else 2
    looks = [f"{key}={EVERY}" for key in ("validation.every", "validation.sample_every", "trainer.save_every")]
    size = [f"trainer.devices={ranks}", "data.batch_size=1", "trainer.max_steps=100000", "validation.sample_inputs=1"]
    words = fit_words(model, dataset, *size, *looks, f"run_dir={run}")
    child = subprocess.Popen(
        [sys.executable, "-m", "svdtrain", "fit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | _environment(case),
        start_new_session=True,
    )
    if case.whom == "launcher":
        _await_phase(child, case.phase)
        child.send_signal(case.number)
    try:
        said, errors = child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return f"it hung: {child.communicate()[1][-300:]}"
    return _fault(case, child.returncode, run, said + errors)


def _environment(case: Case) -> dict[str, str]:
    here = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if case.whom == "launcher":
        return here
    alone = {"SIGNAL_ALONE": "1"} if case.whom == "alone" else {}
    signals = {
        "SIGNAL_PHASE": case.phase,
        "SIGNAL_NUMBER": str(int(case.number)),
        "SIGNAL_RANKS": WHOM.get(case.whom, "0"),
    }
    return here | alone | signals | {"PYTHONPATH": os.pathsep.join([str(HERE / "at_phase"), str(HERE.parents[1])])}


def _await_phase(child: subprocess.Popen[str], phase: str) -> None:
    """From outside only roughly: by what the run has said and written."""
    assert child.stdout
    if phase == "loading":
        while len(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()) < 2:
            time.sleep(0.01)
        return
    wanted = {
        "first look": "run folder",
        "step": "step 1/",
        "validation": "step 2/",
        "sampling": "step 3/",
        "save": "step 4/",
    }
    while wanted[phase] not in (line := child.stdout.readline()):
        assert line, child.communicate()[1]


def _fault(case: Case, code: int, run: Path, said: str) -> str:
    if code != CODES[case.number]:
        return f"exit code {code}: {said[-300:]}"
    if "Traceback" in said or "error: " in said:
        return said[-300:]
    saved = checkpoints(run)
    if faults := [fault for one in saved if (fault := fault_of(one))]:
        return f"a checkpoint is not whole: {faults[0]}"
    if not (run / "run.json").is_file():
        return "" if case.phase in EARLY else "no run.json"
    record = json.loads((run / "run.json").read_text())
    if case.phase in EARLY and not saved:
        return ""
    if not saved or (record["state"], record["step"]) != ("stopped", step_of(saved[-1])):
        return f"{record['state']} at {record.get('step')}, saved {[one.name for one in saved]}"
    if case.whom != "launcher" and record["step"] > EVERY + 1:
        return f"it went on to step {record['step']}"
    return ""
