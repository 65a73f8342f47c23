"""Whether a run's place in the data, as a checkpoint has it, is one in the data of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGAN = "resume with what the run began with, or "


def changes_of_place(
    before: Mapping[str, Any], here: Mapping[str, Any], *, world: int, allow_change: bool
) -> list[str]:
    """What is another than it was, and may be: of the dataset alone, where that is allowed. world: ranks.

    Raises DataError for another dataset, seed, order or global batch.
    """
    clips, found = before["clips_per_batch"], []
    fitting = f"data.batch_size={clips // world} with {world} device{'s' * (world > 1)} would do"
    keys = {
        "dataset": ("the dataset of data.source", f"{BEGAN}data.allow_change=true"),
        "seed": ("seed", f"{BEGAN}start a new run"),
        "order": ("the order of data", f"{BEGAN}start a new run"),
        "clips_per_batch": (
            "data.batch_size x devices",
            fitting if clips % world == 0 else "resume on another number of devices",
        ),
    }
    for field, (what, hint) in keys.items():
        if before[field] == here[field]:
            continue
        message = f"{what} was {before[field]}, now it is {here[field]}"
        if field != "dataset" or not allow_change:
            raise DataError(f"the run cannot go on: {message}", hint)
        found.append(message)
    return found
