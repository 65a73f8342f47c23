"""The same work spread over a Ray cluster, whose machines share the folders; each task still has a process of its own."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from svdtrain.foundation.errors import SvdtrainError, SystemFault, UsageError
from svdtrain.preparation.pool import Failure, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Task = TypeVar("Task")
Answer = TypeVar("Answer")
ANSWERS_WITHIN = 10.0
"""Seconds."""
AHEAD = 2
"""Tasks that wait at Ray for each of its cores."""


def run_all_on_ray(
    work: Callable[[Task, Callable[[], None]], Answer],
    tasks: Iterable[Task],
    *,
    workers: int,
    deadline: float,
    address: str | None,
) -> Iterator[tuple[Task, Answer | Failure]]:
    """As pool.run_all, on the cluster at `address`, or on `workers` cores of a Ray of this machine.

    UsageError when ray is not installed, SystemFault when no cluster answers.
    """
    ray = _connected(address, workers)
    try:
        ask = ray.remote(num_cpus=1, max_retries=0)(_answer)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, asked = deque(tasks), dict[Any, Task]()
        while waiting or asked:
            while waiting and len(asked) < most:
                task = waiting.popleft()
                asked[ask.remote(work, task, deadline)] = task
            (ready,), _ = ray.wait(list(asked), num_returns=1)
            task = asked.pop(ready)
            try:
                answer = ray.get(ready)
            except ray.exceptions.RayError as error:
                answer = Failure("crash", f"Ray: {type(error).__name__}")
            if isinstance(answer, SvdtrainError):
                raise answer
            yield task, answer
    finally:
        ray.shutdown()


def _answer(
    work: Callable[[Task, Callable[[], None]], Answer], task: Task, deadline: float
) -> Answer | Failure | SvdtrainError:
    """One task in a process that may hang or die without harm to Ray's own."""
    try:
        [(_, answer)] = run_all(work, [task], workers=1, deadline=deadline)
    except SvdtrainError as error:  # as a value: Ray would wrap what is raised
        return error
    return answer


def _connected(address: str | None, workers: int) -> Any:  # noqa: ANN401
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor=ray: ray is not installed", "pip install 'svdtrain[ray]'") from error
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise SystemFault(
            f"ray_address={address}: no Ray answers: {first}", "ray status says where one runs"
        ) from error
    return ray


def _knock(address: str) -> None:
    """OSError at once where nobody listens: Ray itself tries for minutes, then ends the program."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()
