"""A fit is killed again and again, and has to end in the very bytes of one that was not."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import SystemFault, UsageError
from svdtrain.selftest.children import Child, Conditions, Nursery
from svdtrain.training.checkpoint import newest_whole, step_of

if TYPE_CHECKING:
    from rich.console import Console

    from svdtrain.config.selftest import SelftestConfig

ADAPTER = Path("adapter") / "adapter_model.safetensors"
SAVE_EVERY = 3
WORDS = (
    "config=style_lora",
    "model.frames=4",
    "model.height=32",
    "model.width=32",
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


def kill_and_compare(config: SelftestConfig, console: Console) -> int:
    """The exit code: 0 when every byte is the same, 6 otherwise. UsageError for an `out` that holds something."""
    with ExitStack() as stack:
        place = _empty(config.out) if config.out else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = place.resolve()
        fits = Fits(config, place)
        stack.callback(fits.nursery.close)
        fits.nursery.start(["--version"], place, Conditions()).wait(600)  # all is imported
        start = time.monotonic()
        whole = place / "whole"
        fits.finish(whole)
        seconds = time.monotonic() - start
        mark = _mark(whole)
        ranks = f" on {config.ranks} ranks" if config.ranks > 1 else ""
        console.print(
            f"a fit of {config.steps} steps{ranks}, never killed: {seconds:.1f} s, adapter sha256 {mark[:16]}"
        )
        draw = random.Random(config.seed)
        kills: list[Kill] = []
        different = runs = 0
        while len(kills) < config.kill:
            run_dir, here = place / f"killed-{runs}", len(kills)
            runs += 1
            while len(kills) < config.kill and (kill := fits.kill(run_dir, draw.uniform(0, 1.2 * seconds))):
                kills.append(kill)
                told = f", {kill.damaged} unfinished passed over" if kill.damaged else ""
                console.print(f"kill {len(kills):>3} after {kill.second:5.1f} s: step {kill.step} is whole{told}")
            fits.finish(run_dir)
            same = _mark(run_dir) == mark
            different += 0 if same else len(kills) - here
            console.print(f"{run_dir.name}: {'byte-identical' if same else 'DIFFERENT'}")
        console.print(f"{config.kill - different} of {config.kill}: byte-identical ({time.monotonic() - start:.0f} s)")
    return 6 if different else 0


def _empty(out: str) -> Path:
    """The folder: of earlier runs in it, those that are complete would be killed in no time, and prove nothing."""
    place = Path(out).expanduser()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"out={out}: taken, it holds something", "name a new folder")
    return place


class Fits:
    """Starts one and the same fit in this folder or that."""

    def __init__(self, config: SelftestConfig, place: Path) -> None:
        self.nursery, self.place, self.steps = Nursery(place / "said"), place, config.steps
        self.words = ["fit", *WORDS, f"trainer.max_steps={config.steps}", f"trainer.devices={config.ranks}"]

    def kill(self, run_dir: Path, second: float) -> Kill | None:
        """Start the run, or go on with it, and kill it at this second; None where it had come to its end before."""
        if self._is_complete(run_dir):
            return None
        child = self.nursery.start([*self.words, f"run_dir={run_dir}"], self.place, Conditions())
        if (code := child.wait(second)) is None:
            child.end()
            newest, passed_over = newest_whole(run_dir)
            return Kill(second, step_of(newest) if newest else 0, len(passed_over))
        _refuse_failure(child, code)
        return None

    def finish(self, run_dir: Path) -> None:
        """Run, or go on, to the end. A run that is complete stays as it is."""
        if not self._is_complete(run_dir):
            child = self.nursery.start([*self.words, f"run_dir={run_dir}"], self.place, Conditions())
            while (code := child.wait(60)) is None:
                pass
            _refuse_failure(child, code)

    def _is_complete(self, run_dir: Path) -> bool:
        newest, _ = newest_whole(run_dir)
        return newest is not None and step_of(newest) >= self.steps


def _refuse_failure(child: Child, code: int) -> None:
    if code:
        said = child.said()[1].strip().splitlines()
        lines = [line for line in said if line.startswith("error: ")]
        why = (lines or said or ["it said nothing"])[-1].removeprefix("error: ")
        raise SystemFault(f"the fit left with {code}: {why}", "selftest out=FOLDER keeps its run for a look")


def _mark(run_dir: Path) -> str:
    return hashlib.sha256((run_dir / ADAPTER).read_bytes()).hexdigest()
