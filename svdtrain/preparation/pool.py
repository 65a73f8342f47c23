"""Work in spawned processes that may hang or die: the task they were at is given up, the others go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from svdtrain.foundation.errors import SvdtrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Work = "Callable[[Task, Callable[[], None]], Answer]"


@dataclass(frozen=True)
class Failure:
    """A task that ended its process, or did not end."""

    reason: str
    """hang or crash."""
    detail: str


class _Worker(Generic[Task]):
    """One process and the task it is at."""

    def __init__(self, work: Callable[[Task, Callable[[], None]], Any], task: Task) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.start(task)

    def start(self, task: Task) -> None:
        self.task, self.last_sign = task, time.monotonic()
        self.pipe.send(task)

    def stop(self) -> int | None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def run_all(
    work: Callable[[Task, Callable[[], None]], Answer], tasks: Iterable[Task], *, workers: int, deadline: float
) -> Iterator[tuple[Task, Answer | Failure]]:
    """(task, work(task, alive)) in the order in which they end, by `workers` spawned processes.

    `work` and tasks must be picklable; work calls alive() now and then: after `deadline` seconds without a call it is
    killed. Its SvdtrainErrors are raised here; anything else it raises is a Failure.
    """
    waiting = deque(tasks)
    busy: dict[Connection, _Worker[Task]] = {}
    try:
        while waiting and len(busy) < workers:
            worker = _Worker(work, waiting.popleft())
            busy[worker.pipe] = worker
        while busy:
            left = min(worker.last_sign for worker in busy.values()) + deadline - time.monotonic()
            ready = connection.wait(list(busy), timeout=max(0.0, left))
            late = [pipe for pipe in busy if time.monotonic() - busy[pipe].last_sign > deadline]
            for pipe in dict.fromkeys([*ready, *late]):
                worker = busy[pipe]  # type: ignore[index]
                answer = _heard(worker, deadline) if pipe in ready else _hung(worker, deadline)
                if answer is None:
                    continue
                yield worker.task, answer
                del busy[worker.pipe]
                if worker.process.is_alive() and waiting:
                    worker.start(waiting.popleft())
                elif waiting:
                    worker = _Worker(work, waiting.popleft())
                else:
                    worker.stop()
                    continue
                busy[worker.pipe] = worker
    finally:
        for worker in busy.values():
            worker.stop()


def _heard(worker: _Worker[Any], deadline: float) -> Any:  # noqa: ANN401
    """The answer, a Failure, or None for a sign of life."""
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join(deadline)
        code = worker.stop()
        return Failure("crash", f"the process ended with exit code {code}")
    worker.last_sign = time.monotonic()
    if kind == "error":
        raise content
    return content


def _hung(worker: _Worker[Any], deadline: float) -> Failure:
    worker.stop()
    return Failure("hang", f"no clip was finished in {deadline:g} s")


def _serve(pipe: Connection, work: Callable[[Any, Callable[[], None]], Any]) -> None:
    """The life of a process: answer tasks until nobody asks any more."""
    # A terminal signals the whole group; the parent ends its processes itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("answer", work(task, lambda: pipe.send(("alive", None)))))
        except SvdtrainError as error:
            pipe.send(("error", error))
        except Exception as error:  # whatever a reader makes of a strange file, the others must go on
            pipe.send(("answer", Failure("crash", f"{type(error).__name__}: {' '.join(str(error).split())}")))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
