"""A child process that decodes what may hang or crash a decoder: it is killed at a deadline, and started again."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from dataclasses import fields
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from svdtrain.data.decoding import HINT, VideoInfo, decode_frames, probe
from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.files import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 30.0
START = 60.0
"""Seconds in which a child must have imported what it needs."""
LARGEST = 0x7FFFF000
"""Bytes that one system call reads or writes."""
GRACE = 5
"""Seconds after the deadline at which a child ends itself, should its parent be gone."""
PROGRAM = ("-m", "svdtrain.data.isolation")


class DecodeChild:
    """`probe` and `decode_frames` in a process of their own, started anew (never forked) when it is first needed.

    Videos and pictures pass through shared memory without a name, the rest through a pipe. For one thread of one
    process: a copy that reaches another process by fork starts a child of its own. `close` it, or use it in a `with`.
    """

    def __init__(self, deadline: float = DEADLINE, *, program: Sequence[str] = PROGRAM) -> None:
        """deadline in seconds for each call; program: the child's arguments for python."""
        self.deadline, self.program = deadline, tuple(program)
        self._running: _Running | None = None

    def __enter__(self) -> DecodeChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_running": None}

    def close(self) -> None:
        """End the child; the next call would start another."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def probe(self, data: bytes, name: str) -> VideoInfo:
        """As decoding.probe. DataError with the reason `hang` or `crash` where that would not have returned."""
        answer, _ = self._ask(data, {"name": name})
        return _info_from(answer["info"])

    def decode_frames(
        self,
        data: bytes,
        indices: Sequence[int],
        name: str,
        info: VideoInfo | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """As decoding.decode_frames, with the errors of `probe`."""
        request = {"name": name, "indices": list(indices), "size": size, "info": info and _info_to(info)}
        answer, pixels = self._ask(data, request)
        return np.frombuffer(pixels, np.uint8).reshape(answer["shape"])

    def _ask(self, data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        name = request["name"]
        if len(data) > LARGEST:
            raise DataError(f"{name} has {len(data):,} bytes", f"at most {LARGEST:,} are read: cut it", "too_large")
        if self._running is None or self._running.owner != os.getpid():
            self._running = _Running(self.program)
        running = self._running
        try:
            running.hold(data)
            answer = running.ask(request | {"deadline": self.deadline}, self.deadline)
        except _NoAnswer:
            self.close()
            message = f"{name} hangs the decoder: no answer in {self.deadline:g} s"
            raise DataError(message, HINT, "hang") from None
        except _Gone as gone:
            self.close()
            raise DataError(f"{name} crashes the decoder ({gone})", HINT, "crash") from None
        except BaseException:  # an answer that comes late would be taken for the next one
            self.close()
            raise
        if "error" in answer:
            raise DataError(*answer["error"])
        if "fault" in answer:
            raise RuntimeError(f"the decoding process failed:\n{answer['fault']}")
        return answer, running.pixels(answer)


class _NoAnswer(Exception):
    """The deadline has passed."""


class _Gone(Exception):
    """The child has ended; says how."""


class _Running:
    """A child that has been started, and what it shares with its parent."""

    def __init__(self, program: Sequence[str]) -> None:
        self.owner = os.getpid()
        self._shared = _shared_file()
        self._held: bytes | None = None
        ours, theirs = os.pipe(), os.pipe()
        passed = (self._shared.fileno(), theirs[0], ours[1])
        command = [sys.executable, *program, *map(str, passed)]
        places = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            # The terminal's signals are for the parent, which ends the child when it ends.
            self._process = subprocess.Popen(
                command,
                pass_fds=passed,
                # A checkout need not be installed, and this process may have left the folder where it was found.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(theirs[0])
            os.close(ours[1])
        self._answers = Connection(ours[0], writable=False)
        self._requests = Connection(theirs[1], readable=False)
        self.end = weakref.finalize(self, _end, self.owner, self._process, self._answers, self._requests, self._shared)
        try:
            self._answer(START)
        except (_NoAnswer, _Gone) as error:
            self.end()
            hint = f"try it by hand: {sys.executable} {' '.join(program)}"
            raise SystemFault(f"the decoding process does not start: {error}", hint) from None

    def hold(self, data: bytes) -> None:
        """Let the child see a video; nothing is done where it does already."""
        if data is not self._held:
            self._held = None
            os.ftruncate(self._shared.fileno(), 0)
            written = os.pwrite(self._shared.fileno(), data, 0)
            assert written == len(data)
            self._held = data

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Its answer about what it holds, in `deadline` seconds."""
        assert self._held is not None
        try:
            self._requests.send_bytes(json.dumps(request | {"bytes": len(self._held)}).encode())
        except OSError:
            raise _Gone(self._how_it_ended()) from None
        return json.loads(self._answer(deadline))

    def _answer(self, deadline: float) -> bytes:
        try:
            if not self._answers.poll(deadline):
                raise _NoAnswer(f"no answer in {deadline:g} s")
            return self._answers.recv_bytes()
        except (EOFError, OSError):
            raise _Gone(self._how_it_ended()) from None

    def pixels(self, answer: dict[str, Any]) -> bytearray:
        """A copy of what the child has written behind the video."""
        pixels = bytearray(math.prod(answer.get("shape", (0,))))
        if pixels:
            read = os.preadv(self._shared.fileno(), [pixels], answer["start"])
            assert read == len(pixels)
        return pixels

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(owner: int, process: subprocess.Popen[bytes], *files: Connection | IO[bytes]) -> None:
    """Leave neither process, zombie nor memory. In a fork of the parent there is nothing to end."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for file in files:
        file.close()


def _shared_file() -> IO[bytes]:
    """A file without a name, in memory on Linux: it is gone when the last process that has it open is."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("decoding", 0), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _info_to(info: VideoInfo) -> dict[str, Any]:
    values = {field.name: getattr(info, field.name) for field in fields(info)}
    return values | {"time_base": [info.time_base.numerator, info.time_base.denominator]}


def _info_from(values: dict[str, Any]) -> VideoInfo:
    changed: dict[str, Any] = {name: tuple(values[name]) for name in ("pts", "keys")}
    changed["time_base"] = Fraction(*values["time_base"])
    return VideoInfo(**values | changed)


def serve(shared: int, requests: int, answers: int) -> None:
    """The child: answer until the parent closes the pipe."""
    asked, answered = Connection(requests, writable=False), Connection(answers, readable=False)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answered.send_bytes(b"ready")
    while True:
        try:
            request = json.loads(asked.recv_bytes())
        except EOFError:
            return
        # The default action ends the process, whatever C code it is in, also when no parent is there to do it.
        signal.alarm(math.ceil(request["deadline"]) + GRACE)
        answered.send_bytes(json.dumps(_answer(request, shared)).encode())
        signal.alarm(0)


def _answer(request: dict[str, Any], shared: int) -> dict[str, Any]:
    try:
        data, name = os.pread(shared, request["bytes"], 0), request["name"]
        if "indices" not in request:
            return {"info": _info_to(probe(data, name))}
        info = _info_from(request["info"]) if request["info"] else None
        frames_THWC = decode_frames(data, request["indices"], name, info, size=request["size"])
        written = os.pwrite(shared, frames_THWC.data, len(data))
        assert written == frames_THWC.nbytes
        return {"shape": frames_THWC.shape, "start": len(data)}
    except DataError as error:
        return {"error": [error.message, error.hint, error.reason]}
    except Exception:
        return {"fault": traceback.format_exc()}


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
