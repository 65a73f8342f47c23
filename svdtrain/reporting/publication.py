"""What of a folder may be published, and a refusal by name for everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.foundation.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

WEIGHTS = ".safetensors"
TEXTS = (".json", ".md")
PICTURES = (".mp4", ".png", ".jpg", ".webp", ".svg")
OF_A_RUN = ("run.json", "checkpoints", "metrics")
"""By these a run folder is known."""
LONGEST_HEADER = 100 * 2**20
MOST_TOLD = 3


@dataclass(frozen=True)
class Outgoing:
    """A file that may leave."""

    name: str
    """In the repository."""
    path: Path
    bytes: int


def outgoing(folder: Path, private_keys: Collection[str], *, private_metadata: bool = False) -> list[Outgoing]:
    """The files of a folder, by name, if all of them may leave.

    Raises UsageError for a run folder, a file of another kind, a link that leads out, and (unless `private_metadata`) one
    of `private_keys` in a file's header or the home folder in a text; ModelError for a damaged file of weights.
    """
    if not folder.is_dir():
        raise UsageError(f"folder={folder}: there is no such folder", "give the folder that export wrote")
    if of_a_run := next((name for name in OF_A_RUN if (folder / name).exists()), None):
        message = f"folder={folder}: it has {of_a_run}: it is a run, with all that it knows of your data"
        raise UsageError(message, "svdtrain export makes a folder that may leave")
    refused: list[str] = []
    found: list[Outgoing] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".") and "/" in name or "/." in name.rpartition("/")[0]:
            continue  # its folder is refused
        if why := _fault(path, folder):
            refused.append(f"'{name}' {why}")
        elif path.is_file():
            found.append(Outgoing(name, path, path.stat().st_size))
    if refused:
        hint = f"take it out; {', '.join((WEIGHTS, *TEXTS, *PICTURES))} may leave"
        raise UsageError(f"folder={folder}: {_several(refused)}", hint)
    if not found:
        raise UsageError(f"folder={folder}: it is empty", "give the folder that export wrote")
    told = [f"'{file.name}' {why}" for file in found if (why := _private_places(file, private_keys))]
    if told and not private_metadata:
        hint = "export it again, which leaves this out; or private_metadata=true sends it as it is"
        raise UsageError(f"folder={folder}: {_several(told)}", hint)
    return found


def _fault(path: Path, folder: Path) -> str:
    """Why this may not leave, or nothing."""
    if path.name.startswith("."):
        return "is hidden"
    if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(folder.resolve())):
        return "is a link that leads out of the folder, or nowhere"
    if path.is_dir():
        return ""
    if not path.is_file():
        return "is no file"
    return "" if path.suffix in (WEIGHTS, *TEXTS, *PICTURES) else "is of a kind that may not leave"


def _several(told: list[str]) -> str:
    more = f" (and {len(told) - MOST_TOLD} more)" if len(told) > MOST_TOLD else ""
    return ", ".join(told[:MOST_TOLD]) + more


def _private_places(file: Outgoing, keys: Collection[str]) -> str:
    """What of this machine the file tells, or nothing."""
    if file.path.suffix == WEIGHTS:
        metadata = _metadata(file)
        named = sorted(set(keys) & metadata.keys())
        if named:
            return f"has {' and '.join(named)} in its header"
        text = "\n".join(str(value) for value in metadata.values())
    elif file.path.suffix in TEXTS:
        text = file.path.read_text(encoding="utf-8", errors="replace")
    else:
        return ""
    home = str(Path.home())
    return "names your home folder" if len(home) > 1 and home in text else ""


def _metadata(file: Outgoing) -> dict[str, Any]:
    """`__metadata__` of a safetensors file: 8 bytes of little-endian length, as much JSON, then the tensors' bytes.

    Raises ModelError for a file that is damaged: what cannot be read cannot be judged.
    """
    try:
        with file.path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length) if length <= LONGEST_HEADER else b"")
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        whole = file.bytes == 8 + length + end and isinstance(metadata, dict)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        whole, metadata = False, {}
    if not whole:
        raise ModelError(f"{file.path}: not a whole safetensors file", "export it again")
    return metadata
