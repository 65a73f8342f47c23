"""For ranks that no launcher of ours watches (one process alone, torchrun, Slurm): each looks after all, itself included."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import LostRank
from svdtrain.launching.pulse import Watch, dump_stacks, told

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.launching.pulse import Pulse


class Watchdog:
    """Ends this process when no rank has moved for `patience` seconds, and says which one holds up the others."""

    def __init__(self, pulse: Pulse, folder: Path, patience: float, ranks: int) -> None:
        self.pulse, self.patience = pulse, patience
        self.watch = Watch(folder, patience, ranks)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.patience / 4)):
            if still := self.watch.still():
                file = self.pulse.stacks
                dump_stacks(file)
                sys.stderr.write(f"error: {told(still, self.watch.bound or 0)}\n")
                sys.stderr.write(
                    f"hint: the same command goes on from the last save; where this process stood: {file}\n"
                )
                sys.stderr.flush()
                os._exit(LostRank.exit_code)
