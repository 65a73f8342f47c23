"""What a composed config may not hold, whoever wrote it: code to run, variables to set, places for Hydra to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

PLUGINS = ("hydra.launcher._target_", "hydra.sweeper._target_")
PLUGIN_CODE = ("hydra._internal.core_plugins.", "hydra_plugins.")
LOG_CLASSES = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter")
OUTER_OBJECTS = ("ext://sys.stdout", "ext://sys.stderr")
WRITTEN_TO = {
    "hydra.run.dir": ".",
    "hydra.output_subdir": None,
    "hydra.sweep.dir": "runs/sweeps/${now:%Y%m%d-%H%M%S-%f}",
    "hydra.sweep.subdir": ".",
}
"""Where Hydra makes folders and files, as configs/hydra/quiet.yaml says."""


def refuse_code(composed: object, given: Collection[str] = ()) -> None:
    """Raise UsageError for the first thing in an unresolved config that could do more than name a value.

    `given`: the keys on the command line, where alone it may be said where Hydra writes.
    """
    for where, value in _walk(composed):
        name = where.rpartition(".")[2]
        if name == "_target_" and not (where in PLUGINS and str(value).startswith(PLUGIN_CODE)):
            raise UsageError(f"{where}: {value} is refused, _target_ can run any code")
        if where.startswith("hydra."):
            _refuse_hydra(where, name, value)
            if where in WRITTEN_TO and value != WRITTEN_TO[where] and where not in given:
                raise UsageError(f"{where}: {value} is refused in a file", f"say it on the command line: {where}=…")


def refuse_packages(places: Iterable[object]) -> None:
    """Raise UsageError for anything but a folder in hydra.searchpath: to search a package, Hydra imports it."""
    for place in places:
        if not str(place).startswith(("file://", "/")):
            raise UsageError(f"hydra.searchpath: {place} is refused, it names no folder", "file:///FOLDER")


def _refuse_hydra(where: str, name: str, value: Any) -> None:  # noqa: ANN401
    logs = where.startswith(("hydra.job_logging.", "hydra.hydra_logging."))
    refusals: dict[str, Callable[[], bool]] = {
        "logging can call any code": lambda: (
            logs and (name in ("()", "..") or (name == "class" and value not in LOG_CLASSES) or _is_outer(value))
        ),
        "it sets variables of the environment": lambda: where.startswith("hydra.job.env_"),
        "a sweep over Hydra's own settings": lambda: where.startswith("hydra.sweeper.params.hydra"),
        "callbacks run code": lambda: where.startswith("hydra.callbacks."),
    }
    if why := next((why for why, refused in refusals.items() if refused()), None):
        raise UsageError(f"{where}: is refused, {why}")


def _is_outer(value: object) -> bool:
    return isinstance(value, str) and (value.startswith("cfg://") or ("://" in value and value not in OUTER_OBJECTS))


def _walk(node: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is not a container; of an empty container nothing."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list):
            if key == "_target_":
                yield where, value
            yield from _walk(value, where)
        else:
            yield where, value
