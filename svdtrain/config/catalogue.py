"""What can be said on a command line: the groups and options on disk, and the keys of a schema."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from svdtrain.foundation.errors import UsageError, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def groups(roots: Sequence[Path], config_name: str) -> dict[str, dict[str, Path]]:
    """The groups of a primary config, and each one's options with their files.

    Where two roots have the same option, the earlier root's counts, as in Hydra's search path.
    """
    found: dict[str, dict[str, Path]] = {}
    for group in _group_names(roots, config_name):
        files = [file for root in roots for file in sorted(root.glob(f"{group}/*.yaml"))]
        found[group] = {file.stem: file for file in reversed(files)}
    return found


def _group_names(roots: Sequence[Path], config_name: str) -> list[str]:
    primary = next((file for root in roots if (file := root / f"{config_name}.yaml").is_file()), None)
    if primary is None:
        names = sorted(file.stem for root in roots for file in root.glob("*.yaml"))
        raise UsageError(f"{config_name}: no such primary config; {nearest(config_name, names)}")
    names: list[str] = []
    content = _content(primary)
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        if isinstance(entry, str) and entry not in ("_self_", config_name):
            names += _group_names(roots, entry)
        if isinstance(entry, dict) and not str(next(iter(entry))).startswith("override "):
            names.append(str(next(iter(entry))).removeprefix("optional "))
    return names


def searched(roots: Sequence[Path], config_name: str) -> list[object]:
    """Where a primary config has Hydra look for more."""
    found: list[object] = []
    for file in (root / f"{config_name}.yaml" for root in roots):
        content = _content(file) if file.is_file() else None
        hydra = content.get("hydra") if isinstance(content, dict) else None
        places = hydra.get("searchpath") if isinstance(hydra, dict) else None
        found += places if isinstance(places, list) else [] if places is None else [places]
    return found


def _content(file: Path) -> Any:  # noqa: ANN401
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{file}, line {line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not YAML: {shown(str(error), 90)}") from error


def first_comment(file: Path) -> str:
    """The first comment line of a config file that is not a Hydra header; empty when there is none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""


def keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, groups of keys included."""
    found: list[str] = []
    for plain, field in schema.model_fields.items():
        name = field.alias or plain
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found.extend(keys(field.annotation, f"{prefix}{name}."))
    return found


def suggestion(key: str, known: Sequence[str]) -> str:
    """The likeliest known key: by its whole name, else by its last part (or initials: lr); else the names beside it."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    if not close:
        # The shallowest key of a name counts, and of those the last: trainer.max_steps rather than model.max_steps.
        by_depth = sorted(known, key=lambda name: -name.count("."))
        last = {name.rpartition(".")[2]: name for name in by_depth}
        initials = {"".join(word[:1] for word in name.split("_")): name for name in last if "_" in name}
        typed = key.rpartition(".")[2]
        close = [last[name] for name in difflib.get_close_matches(initials.get(typed, typed), last, n=1, cutoff=0.6)]
    if close:
        return f"did you mean '{close[0]}'?"
    parent = key.rpartition(".")[0]
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    return "known: " + shown(", ".join(name for name in known if name.rpartition(".")[0] == parent), 100)
