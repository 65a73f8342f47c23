"""Which settings may differ when a run goes on: those that change neither what is learnt nor from what."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import UsageError, shown
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HARMLESS = re.compile(
    r"run_dir|resume|change|privacy|supervise|(memory|speed|logger)\..*"
    r"|validation\.(every|training_clips|generic|generic_clips|sample_every|sample_inputs|sample_seed|sampling_steps)"
    r"|model\.(id|revision|source|variant|motion_adapter|licence|sampling_steps|guidance|validate_every|validation_clips|preview_every"
    r"|previews|max_steps|learning_rate|rank|batch_size|data_fps|data_motion_bucket)"
    r"|data\.(source|workers|batch_size|cache|cache_dir|cache_dtype|shard_cache|shard_cache_gb|decode_deadline|verify|allow_change"
    r"|on_bad_sample|max_bad_fraction)"
    r"|trainer\.(max_steps|precision|device|devices|nodes|save_every|keep_checkpoints|keep_adapters|keep_best|stop_early|report"
    r"|log_every|compare_every|watchdog|requeue)"
    r"|adapter\.rank"
)
"""What only says where and how fast, what is looked at, what others refer to, or what is checked by its content: base, data
and global batch have fingerprints of their own."""
MOST_TOLD = 3


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (value of the run, value now) of each setting that differs."""
    old, new = _flat(redacted(before)), _flat(redacted(now))  # as the run's record is
    return {
        key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise UsageError for settings that differ from the run's, but for harmless ones and those in `allowed`.

    An allowed key allows what is under it, and those that follow it by reference: optimizer.learning_rate every half's.
    """
    every = changes(before, now)
    steps = "trainer.max_steps"
    fixed = [steps] if now["optimizer"]["schedule"] == "cosine" else []
    found = {key: pair for key, pair in every.items() if key in fixed or not HARMLESS.fullmatch(key)}
    found = {key: pair for key, pair in found.items() if not any(_allows(one, key, every) for one in allowed)}
    if not found:
        return
    pairs = list(found.items())[:MOST_TOLD]
    told = shown("; ".join(f"{key} was {shown(old)}, now it is {shown(new)}" for key, (old, new) in pairs), 150)
    more = f" (and {len(found) - MOST_TOLD} more)" if len(found) > MOST_TOLD else ""
    keys = ",".join(found) if len(found) <= MOST_TOLD else "…"
    raise UsageError(
        f"the run cannot go on: {told}{more}", f"the run's own settings, or change=[{keys}] to train on with these"
    )


def _allows(allowed: str, key: str, every: Mapping[str, tuple[Any, Any]]) -> bool:
    """What follows by reference has the same name, and went from the same value to the same, or grew by the same factor."""
    namesake = key.rpartition(".")[2] == allowed.rpartition(".")[2]
    return f"{key}.".startswith(f"{allowed}.") or (namesake and allowed in every and _alike(every[key], every[allowed]))


def _alike(change: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    numbers = all(isinstance(one, int | float) and one != 0 for one in (*change, *other))
    return change == other or (numbers and math.isclose(change[1] * other[0], other[1] * change[0], rel_tol=1e-9))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(node, dict):
        return {prefix.rstrip("."): list(node) if isinstance(node, tuple) else node}
    return {key: value for name, child in node.items() for key, value in _flat(child, f"{prefix}{name}.").items()}
