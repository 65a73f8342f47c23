"""From the stream to the training loop: which batches a rank takes, and processes that make them and end with it."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from svdtrain.data.stream import Loaded, Slot
from svdtrain.foundation.errors import SvdtrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svdtrain.data.order import BatchOrder
    from svdtrain.types import ClipBatch


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
        start, batches = time.perf_counter(), super().__iter__()
        with ended(batches):
            loaded = next(batches, None)
            self.first_seconds = time.perf_counter() - start
            while loaded is not None:
                if isinstance(loaded, SvdtrainError):
                    raise loaded
                if self.note:
                    self.note(loaded)
                yield loaded.batch
                start = time.perf_counter()
                loaded = next(batches, None)
                self.waited_seconds += time.perf_counter() - start


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
