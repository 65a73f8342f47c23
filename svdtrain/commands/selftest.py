"""`python -m svdtrain selftest`: a fit is killed again and again, and has to end in the very bytes of one that was not."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.foundation.errors import SystemFault
from svdtrain.training.checkpoint import newest_whole, step_of

if TYPE_CHECKING:
    from svdtrain.config.selftest import SelftestConfig

ADAPTER = Path("adapter") / "adapter_model.safetensors"
SAVE_EVERY = 3
WORDS = (
    "config=style_lora",
    "data.batch_size=1",
    "data.workers=0",
    f"trainer.save_every={SAVE_EVERY}",
    "trainer.accumulate=2",
    "optimizer.ema_decay=0.9",
    "optimizer.warmup_steps=2",
    "validation.every=1000000",
    "validation.clips=1",
    "validation.sigmas=[2.0]",
    "validation.sample_inputs=0",
    "trainer.device=cpu",
)


@dataclass(frozen=True)
class Kill:
    """One of them."""

    second: float
    """After the process was started."""
    step: int
    """Of the newest whole checkpoint that it left."""
    damaged: int
    """Newer ones that were not whole, and were passed over."""


def run(config: SelftestConfig, overrides: list[str]) -> int:  # noqa: ARG001
    """0 when every byte is the same."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        place = Path(config.out) if config.out else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start = time.monotonic()
        whole = place / "whole"
        _finished(whole, config.steps)
        seconds = time.monotonic() - start
        mark = _mark(whole)
        console.print(f"a fit of {config.steps} steps, never killed: {seconds:.1f} s, adapter sha256 {mark[:16]}")
        draw = random.Random(config.seed)
        kills: list[Kill] = []
        different = runs = 0
        while len(kills) < config.kill:
            run_dir, here = place / f"killed-{runs}", len(kills)
            runs += 1
            while len(kills) < config.kill and (kill := _kill(run_dir, config.steps, draw.uniform(0, 1.2 * seconds))):
                kills.append(kill)
                told = f", {kill.damaged} unfinished passed over" if kill.damaged else ""
                console.print(f"kill {len(kills):>3} after {kill.second:5.1f} s: step {kill.step} is whole{told}")
            _finished(run_dir, config.steps)
            same = _mark(run_dir) == mark
            different += 0 if same else len(kills) - here
            console.print(f"{run_dir.name}: {'byte-identical' if same else 'DIFFERENT'}")
        console.print(f"{config.kill - different} of {config.kill}: byte-identical ({time.monotonic() - start:.0f} s)")
    return 6 if different else 0


def _start(run_dir: Path, steps: int) -> subprocess.Popen[bytes]:
    words = [*WORDS, f"trainer.max_steps={steps}", f"run_dir={run_dir}"]
    command = [sys.executable, "-m", "svdtrain", "fit", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _kill(run_dir: Path, steps: int, second: float) -> Kill | None:
    """Start the run, or go on with it, and kill it at this second; None where it had come to its end before."""
    if _is_complete(run_dir, steps):
        return None
    child = _start(run_dir, steps)
    try:
        child.wait(second)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        newest, passed_over = newest_whole(run_dir)
        return Kill(second, step_of(newest) if newest else 0, len(passed_over))
    _refuse_failure(child)
    return None


def _finished(run_dir: Path, steps: int) -> None:
    """Run, or go on, to the end. A run that is complete stays as it is."""
    if not _is_complete(run_dir, steps):
        child = _start(run_dir, steps)
        child.wait()
        _refuse_failure(child)


def _is_complete(run_dir: Path, steps: int) -> bool:
    newest, _ = newest_whole(run_dir)
    return newest is not None and step_of(newest) >= steps


def _refuse_failure(child: subprocess.Popen[bytes]) -> None:
    assert child.stderr
    said = child.stderr.read().decode(errors="replace").strip().splitlines()
    if child.returncode:
        lines = [line for line in said if line.startswith("error: ")]
        why = (lines or said or ["it said nothing"])[-1].removeprefix("error: ")
        raise SystemFault(
            f"the fit left with {child.returncode}: {why}", "selftest out=FOLDER keeps its run for a look"
        )


def _mark(run_dir: Path) -> str:
    return hashlib.sha256((run_dir / ADAPTER).read_bytes()).hexdigest()
