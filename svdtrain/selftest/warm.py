"""A process that has imported what the commands need, and forks for each command line: it saves six seconds a time.

A fork then does what `python -m svdtrain` does, from the module's first line to the interpreter's end. Started with
`python -m svdtrain.selftest.warm`, it is asked by lines of JSON, and answers each with one.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import runpy
import struct
import sys
import tempfile
import time
from typing import Any

from svdtrain.foundation.garbage import uncollected

IMPORTED = tuple(f"svdtrain.commands.{name}" for name in ("fit", "generate", "prepare", "cache", "export", "inspect"))
POLL = 0.01
_CAPABILITIES_V3 = 0x20080522
_OVERRIDE_RIGHTS = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root writes where nobody may."""


def serve() -> None:
    """Answer until nobody asks any more. A fork ends with its command, as the command line's own entry ends."""
    with uncollected(stays=True):  # at the end of each fork, the search for cycles in all of torch took a second
        for module in IMPORTED:
            importlib.import_module(module)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            pid = os.fork()
            if not pid:
                run(asked["start"])
                return
            answer: dict[str, Any] = {"pid": pid}
        else:
            answer = {"code": _code_of(asked["wait"], asked["seconds"], codes)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _code_of(pid: int, seconds: float, codes: dict[int, int]) -> int | None:
    """The exit code of a fork, -9 and the like for one that was killed; None: it still runs."""
    end = time.monotonic() + seconds
    while pid not in codes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > end:
            return None
        else:
            time.sleep(POLL)
    return codes[pid]


def run(told: dict[str, Any]) -> None:
    """Become the command: its folder, output, environment, limits; then its module."""
    os.setsid()
    os.chdir(told["folder"])
    for number, file, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, told["stdout"], os.O_WRONLY),
        (2, told["stderr"], os.O_WRONLY),
    ):
        os.dup2(os.open(file, flags | os.O_CREAT, 0o644), number)
    os.environ.clear()
    os.environ.update(told["environment"])
    tempfile.tempdir = None
    for name, most in told["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if told["plain_rights"]:
        _give_up_rights()
    if told["stand_in"]:
        runpy.run_path(told["stand_in"])
    sys.argv = ["svdtrain", *told["words"]]
    runpy.run_module("svdtrain", run_name="__main__", alter_sys=True)


def _give_up_rights() -> None:
    """Root no longer writes where the mode of a folder forbids it. Nothing to do for anyone else."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = struct.pack("Ii", _CAPABILITIES_V3, 0), ctypes.create_string_buffer(24)
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("6I", sets.raw))  # effective, permitted, inheritable; then their upper halves
    kept = [word & ~_OVERRIDE_RIGHTS if place < 3 else word for place, word in enumerate(words)]
    if libc.capset(header, struct.pack("6I", *kept)):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve()
