"""Rows 34 to 39, and 46: processes of a run that die, hang, fail or differ; and a tracker that is not there."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.selftest.children import Conditions, descendants
from svdtrain.selftest.faults.archives import members
from svdtrain.selftest.faults.machine import LONG, MINE
from svdtrain.selftest.faults.place import Place, fit, saved
from svdtrain.selftest.faults.row import Broken, Fault, Run, Runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.selftest.children import Child

TWO = ("trainer.devices=2", "run_dir=run")
SLOW = 120.0
"""Seconds for a run of two ranks: each imports torch afresh."""


def _no_proc() -> str:
    return "" if Path("/proc/self/environ").exists() else "no /proc: the processes of a run cannot be found"


def rank_of(child: Child, number: int) -> int:
    """The process of a rank."""
    for pid in descendants(child.pid):
        if f"\0RANK={number}\0".encode() in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
            return pid
    raise Broken(f"there is no rank {number}")


def hit(place: Place, number: int, by: signal.Signals) -> Callable[[Child], None]:
    """Send a signal to a rank when `run` has saved twice."""

    def send(child: Child) -> None:
        if child.until(lambda: saved(place, 2), SLOW):
            os.kill(rank_of(child, number), by)

    return send


def _dead_rank(place: Place) -> Runs:
    place.copy("prepared")
    said = ("rank 0 (process ", "was killed by SIGKILL at step ")
    yield Run(fit(*TWO, *LONG), 75, said, MINE, meanwhile=hit(place, 0, signal.SIGKILL), seconds=30)
    shutil.rmtree(place.folder / "run")
    words = fit(*TWO, "trainer.max_steps=40", "supervise=1")
    said = ("rank 1 (process ", "was killed by SIGKILL at step ", "; restart 1 of 1", "step 40/40")
    yield Run(words, 0, said, MINE, meanwhile=hit(place, 1, signal.SIGKILL), seconds=SLOW)


def _hung_rank(place: Place) -> Runs:
    place.copy("prepared")
    words = fit(*TWO, *LONG, "trainer.watchdog=4")
    said = ("rank 1 (process ", "has not moved for 4 s at step ")
    yield Run(words, 75, said, MINE, meanwhile=hit(place, 1, signal.SIGSTOP), seconds=30)


def _failed_rank(place: Place) -> Runs:
    shard = place.copy("prepared") / "shards" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    video = next(one for one in members(shard) if one.name.endswith(".mp4"))
    content[video.offset_data + video.size // 2] ^= 1
    shard.write_bytes(content)
    said = (f"clip '{video.name.removesuffix('.mp4')}' in prepared/shards/train-000000.tar is damaged",)
    yield Run(fit(*TWO, *LONG), 3, said, MINE, seconds=SLOW)


def _uneven_shards(place: Place) -> Runs:
    place.copy("prepared")
    yield Run(fit(*TWO, "trainer.max_steps=5"), 0, ("5 clips and 1 held out", "step 5/5"), MINE, seconds=SLOW)


def _dead_worker(place: Place) -> Runs:
    place.copy("prepared")

    def kill(times: int) -> Callable[[Child], None]:
        def send(child: Child) -> None:
            killed: set[int] = set()
            while len(killed) < times and child.until(lambda: saved(place, 2) and workers_of(child) - killed):
                for pid in workers_of(child) - killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

        return send

    said = ("a loading process was killed by SIGKILL at clip '", "in prepared/shards/train-000000.tar")
    words = fit("run_dir=run", "data.workers=1", "trainer.max_steps=12")
    yield Run(words, 0, (*said, "another one takes its place", "step 12/12"), MINE, meanwhile=kill(1))
    shutil.rmtree(place.folder / "run")
    yield Run(fit("run_dir=run", *LONG, "data.workers=1"), 3, said, MINE, meanwhile=kill(2))


def workers_of(child: Child) -> set[int]:
    """Its forks: they run its own program."""
    program = Path(f"/proc/{child.pid}/cmdline").read_bytes()
    return {pid for pid in descendants(child.pid) if Path(f"/proc/{pid}/cmdline").read_bytes() == program}


def _tracker(place: Place) -> Runs:
    place.copy("prepared")
    offline = fit("run_dir=short", "logger=wandb")
    yield Run(offline, 0, ("no API key, so the run is kept offline",), ("short", "short/*"))
    words = fit("run_dir=run", "logger=wandb", "trainer.max_steps=40")

    def kill(child: Child) -> None:
        if child.until(lambda: saved(place, 4)):
            for pid in descendants(child.pid):
                if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    yield Run(words, 0, ("step 40/40",), MINE, meanwhile=kill)
    nowhere = Conditions({"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"})
    far = fit("run_dir=far", "logger=wandb")
    yield Run(far, 0, ("step 2/2", "warning: "), ("far", "far/*"), nowhere, seconds=SLOW)


FLIP = """
import os
if os.environ.get("RANK") == "1" and any("--job" in word for word in __import__("sys").orig_argv):
    from svdtrain.training.callbacks.same_weights import SameWeights
    real = SameWeights.on_train_batch_end
    def flipped(self, trainer, module, *rest):
        if trainer.global_step == 2:
            next(iter(module.trained_parameters().values())).data.view(-1)[0] += 1e-3
        real(self, trainer, module, *rest)
    SameWeights.on_train_batch_end = flipped
"""


def _apart(place: Place) -> Runs:
    place.copy("prepared")
    words = fit(*TWO, "trainer.max_steps=6")
    said = ("the weights of ranks have come apart by step 2: rank ",)
    yield Run(words, 6, said, MINE, Conditions(stand_in=FLIP), seconds=SLOW)
    if not saved(place, 1) or saved(place, 2):
        raise Broken("the newest checkpoint is not that of the step before")


ROWS = (
    Fault(34, "a rank that is killed, the first one too; supervise=1", _dead_rank, _no_proc),
    Fault(35, "a rank that stands still (SIGSTOP)", _hung_rank, _no_proc),
    Fault(36, "a rank that fails, by a clip of its own", _failed_rank),
    Fault(37, "clips that do not divide among ranks", _uneven_shards),
    Fault(38, "a loading process that is killed", _dead_worker, _no_proc),
    Fault(39, "W&B: no key, its service killed, no network", _tracker, _no_proc),
    Fault(46, "weights that differ between ranks (by a stand-in)", _apart),
)
