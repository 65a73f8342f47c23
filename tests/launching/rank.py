"""A rank without a model: it does what the job tells it, so that a launcher can be tried in a second.

job["config"]["acts"][RANK] is a list of words, by start: the k-th start (starts are counted in files) takes the k-th.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from svdtrain.launching.launcher import leave_with_launcher
from svdtrain.launching.notice import Notice
from svdtrain.launching.pulse import BEATS_VARIABLE, Pulse


def act(word: str, pulse: Pulse) -> int:
    """done, kill, error, crash, lost, stop, freeze, or one that waits; `step=N` or `late` before it."""
    if word.startswith("step="):
        first, _, word = word.partition(" ")
        pulse.stepped(int(first[5:]))
    if word.startswith("late "):
        time.sleep(0.5)
        word = word[5:]
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word in ("wait", "moving", "loading", "deaf", "newborn"):
        while True:
            time.sleep(0.05)
            pulse.marks += word == "moving"
    said = {"error": "error: clip 'a' is damaged\nhint: mend it\n", "lost": "error: rank lost another rank\n"}
    sys.stderr.write(said.get(word, ""))
    return {"done": 0, "error": 3, "crash": 9, "lost": 75, "stop": 143}[word]


def main() -> int:
    leave_with_launcher()
    rank = os.environ["RANK"]
    job = json.loads(Path(sys.argv[1]).read_text())["config"]
    place = Path(job["place"])
    acts = job["acts"][int(rank)]
    starts = len(list(place.glob(f"start-{rank}-*")))
    (place / f"start-{rank}-{starts}").write_text(json.dumps([job.get("resume"), os.getpid()]))
    if acts[0] == "absent":
        time.sleep(600)
    if acts[0] == "newborn":
        time.sleep(1.5)
    heard = nullcontext() if acts[0] == "deaf" else Notice().heard()
    with heard, Pulse(Path(os.environ[BEATS_VARIABLE]), int(rank), interval=0.05) as pulse:
        if acts[0] != "loading":
            pulse.settle(place)
            pulse.trains = True
        time.sleep(0.2)
        return act(acts[min(starts, len(acts) - 1)], pulse)


if __name__ == "__main__":
    sys.exit(main())
