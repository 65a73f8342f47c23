"""A rank that signals itself when it comes to a phase, so that the signal is there at that very moment.

SIGNAL_PHASE, SIGNAL_NUMBER and SIGNAL_RANKS (0, 1 or 0,1) say which; the launcher, which has no RANK, is left alone.
"""

from __future__ import annotations

import os
import sys
from functools import wraps
from importlib.abc import MetaPathFinder
from typing import Any

STEP = 2


def signalled(function: Any, when: Any) -> Any:  # noqa: ANN401
    """The function, with the signal sent as it begins, once."""
    sent: list[bool] = []

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not sent and when(*args):
            sent.append(True)
            os.kill(os.getpid(), int(os.environ["SIGNAL_NUMBER"]))
        return function(*args, **kwargs)

    return wrapped


class AtImport(MetaPathFinder):
    """Signals when the module is looked for that imports torch."""

    def find_spec(self, fullname: str, *_: Any) -> None:  # noqa: ANN401
        if fullname == "svdtrain.commands.fit":
            os.kill(os.getpid(), int(os.environ["SIGNAL_NUMBER"]))


def prepare(phase: str) -> None:
    if phase == "importing":
        sys.meta_path.insert(0, AtImport())
        return
    from svdtrain.commands import fit
    from svdtrain.training.callbacks import sample, save
    from svdtrain.training.callbacks.validate import SigmaGridValidation
    from svdtrain.training.checkpoint import FolderCheckpoint
    from svdtrain.training.module import FineTuning

    def stands(_: Any, trainer: Any, *__: Any) -> bool:  # noqa: ANN401
        return trainer.global_step == STEP

    first_alone = {
        "sampling": (sample, "Comparison", lambda *_: True),
        "save": (FolderCheckpoint, "save_checkpoint", lambda *_: True),
    }
    beside_the_first = {
        "sampling": (sample.SampleVideos, "on_train_batch_end", stands),
        "save": (save.SaveCheckpoints, "on_train_batch_end", stands),
    }
    owner, name, when = {
        "loading": (fit, "build_family", lambda *_: True),
        "first look": (SigmaGridValidation, "_look", lambda _, __, ___, step: step == 0),
        "step": (FineTuning, "training_step", lambda module, *_: module.global_step == STEP),
        "validation": (SigmaGridValidation, "_look", lambda _, __, ___, step: step == STEP),
        **(beside_the_first if os.environ.get("RANK", "0") != "0" else first_alone),
    }[phase]
    setattr(owner, name, signalled(getattr(owner, name), when))


if ("RANK" in os.environ or "SIGNAL_ALONE" in os.environ) and os.environ.get("RANK", "0") in os.environ.get(
    "SIGNAL_RANKS", ""
).split(","):
    # What the rank starts, decoders say, is neither signalled nor made to import what a rank does.
    del os.environ["SIGNAL_RANKS"]
    prepare(os.environ["SIGNAL_PHASE"])
