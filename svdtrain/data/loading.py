"""From the stream to the training loop: which batches a rank takes, and processes that make them and end with it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from svdtrain.data.stream import Loaded, Slot
from svdtrain.foundation.errors import DataError, SvdtrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svdtrain.data.order import BatchOrder
    from svdtrain.types import ClipBatch

DYING = 1.0
"""Seconds in which a process that broke a connection has ended."""
LOST_HINT = "too little memory (fewer data.workers), or a clip that its reader does not survive (data.workers=0 tells)"

log = logging.getLogger(__name__)


class GlobalBatches(Sampler[list[Slot]]):
    """One rank's part of each global batch: batch k holds the positions [k * G, (k + 1) * G), cut into a part per rank."""

    def __init__(self, order: BatchOrder, *, rank: int = 0, world: int = 1, first: int = 0, total: int) -> None:
        """Batches `first` to `total` of the run; G = order.batch is shared evenly by `world` ranks."""
        assert order.batch % world == 0
        assert 0 <= rank < world
        self.order, self.rank, self.world, self.first, self.total = order, rank, world, first, total

    def __len__(self) -> int:
        """Batches of the whole run, the first ones included: Lightning compares it with the batch it resumes at."""
        return self.total

    def __iter__(self) -> Iterator[list[Slot]]:
        share = self.order.batch // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        batches = islice(self.order.batches(self.first), max(0, self.total - self.first))
        for number, clips in enumerate(batches, self.first):
            slots = [Slot(number * self.order.batch + place, clip) for place, clip in enumerate(clips.tolist())]
            yield slots[mine]


class ClipLoader(DataLoader[Any]):
    """A DataLoader that hands out batches, raises a worker's DataError as it was, and tells of bad samples."""

    def __init__(
        self,
        clips: Dataset[Any],
        batches: GlobalBatches | None = None,
        *,
        workers: int = 0,
        note: Callable[[Loaded], None] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """batches: of places in `clips`; None: `clips` gives whole batches by itself. note: called with each batch before
        it is handed out; options are torch's own.
        """
        how: dict[str, Any] = {"batch_sampler": batches} if batches else {"batch_size": None}
        super().__init__(
            clips,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=ignore_signals,
            **how,
            **options,
        )
        self.note = note
        self.first_seconds = 0.0
        """Until the first batch was here: processes start, and fill their queues."""
        self.waited_seconds = 0.0
        """For all later ones together."""

    def __iter__(self) -> Iterator[ClipBatch]:  # type: ignore[override]
        """A process that is killed is replaced once: what a batch holds does not depend on who makes it.

        DataError that names its clip when that happens again, or where the order is not known beforehand.
        """
        batches = self.batch_sampler if isinstance(self.batch_sampler, GlobalBatches) else None
        before = handed = batches.first if batches else 0
        try:
            for may_restart in (batches is not None, False):
                try:
                    for batch in self._handed_out():
                        handed += 1
                        yield batch
                    return
                except _LostWorker as lost:
                    if not may_restart:
                        raise DataError(str(lost), LOST_HINT, "crash") from lost
                    log.warning("%s; another one takes its place", lost)
                    assert batches
                    batches.first = handed
        finally:
            if batches:
                batches.first = before

    def _handed_out(self) -> Iterator[ClipBatch]:
        start, batches = time.perf_counter(), self._started()
        with ended(batches):
            loaded = self._next(batches)
            self.first_seconds = time.perf_counter() - start
            while loaded is not None:
                if isinstance(loaded, SvdtrainError):
                    raise loaded
                if self.note:
                    self.note(loaded)
                yield loaded.batch
                start = time.perf_counter()
                loaded = self._next(batches)
                self.waited_seconds += time.perf_counter() - start

    def _started(self) -> Iterator[Any]:
        """torch's own handler of SIGCHLD would raise in the middle of a training step; `next` finds a lost process, too."""
        before = signal.getsignal(signal.SIGCHLD)
        batches = super().__iter__()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return batches

    def _next(self, batches: Iterator[Any]) -> Any:  # noqa: ANN401
        try:
            return next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # a batch in the queue may still be in the lost one's hands
            workers: list[Any] = getattr(batches, "_workers", [])
            ready = wait([worker.sentinel for worker in workers], DYING)
            dead = next((number for number, worker in enumerate(workers) if worker.sentinel in ready), None)
            if dead is None:
                raise
            workers[dead].join()
            code = workers[dead].exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
            raise _LostWorker(f"a loading process {how}{self._at_work(batches, dead)}") from error

    def _at_work(self, batches: Any, worker: int) -> str:  # noqa: ANN401
        """The first clip of the batch that a worker was making, where the order is known."""
        tasks = sorted(number for number, (by, *done) in batches._task_info.items() if by == worker and not done)
        if not tasks or not isinstance(self.batch_sampler, GlobalBatches):
            return ""
        slots = next(islice(iter(self.batch_sampler), tasks[0], None))
        return f" at {self.dataset.clips[slots[0].clip].name}"  # type: ignore[attr-defined]


class _LostWorker(Exception):
    """A loading process has ended by itself; says how."""


@contextmanager
def ended(batches: Iterator[Any]) -> Iterator[None]:
    """End a DataLoader's workers with the `with`: by themselves they outlive an error, and the process waits for them."""
    try:
        yield
    finally:
        if end := getattr(batches, "_shutdown_workers", None):
            end()


def ignore_signals(_worker: int) -> None:
    """For a worker: a terminal or a cluster signals the whole process group, and a run that stops needs its workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(loaded: Any) -> Any:  # noqa: ANN401
    return loaded
