"""What a disk may hold after a loss of power, by the strictest reading of POSIX.

A file's content is on the disk once the file was flushed, a name once its folder was; until then each may be there or not,
on its own and in any order. Folder and file are told apart from others by their inode, which is kept in use meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

RANDOM_STATES = 8
"""Beside those in which one change alone has arrived, and one alone has not."""
Names = dict[str, int]


@dataclass
class Tree:
    """Folders and files by inode."""

    names: dict[int, Names] = field(default_factory=dict[int, Names])
    content: dict[int, bytes] = field(default_factory=dict[int, bytes])


class Disk:
    """Watches all below `root`; what is there at the start is on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = root.stat().st_ino
        self._open: dict[int, int] = {}
        self.durable = self.seen()
        self.states: list[Callable[[Path], None]] = []
        """Each writes one state that a loss of power at some point may leave, into an empty folder."""

    def seen(self) -> Tree:
        """What a process sees."""
        tree = Tree()
        self._look(self.root, tree)
        return tree

    def _look(self, path: Path, tree: Tree) -> int:
        inode = path.stat().st_ino
        if inode not in self._open:
            self._open[inode] = os.open(path, os.O_RDONLY)
        if path.is_dir():
            tree.names[inode] = {child.name: self._look(child, tree) for child in sorted(path.iterdir())}
        else:
            tree.content[inode] = path.read_bytes()
        return inode

    def flushed(self, handle: int) -> None:
        """fsync has returned."""
        inode, now = os.fstat(handle).st_ino, self.seen()
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self.durable.names[inode] = now.names[inode]
        else:
            self.durable.content[inode] = now.content[inode]

    def may_fail_here(self) -> None:
        """Note the states that are possible now."""
        now, known = self.seen(), self.durable
        pending: list[tuple[int, str]] = []
        for inode, names in (known.names | now.names).items():
            before, after = known.names.get(inode, {}), now.names.get(inode, names)
            pending += [(inode, name) for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        pending += [(inode, "") for inode, data in now.content.items() if known.content.get(inode) != data]
        draw = Random(len(self.states))
        arrived = [set(pending), *({one} for one in pending), *(set(pending) - {one} for one in pending), set()]
        arrived += [{one for one in pending if draw.random() < 0.5} for _ in range(RANDOM_STATES)]
        self.states += [self._state(known, now, one) for one in arrived]

    def _state(self, known: Tree, now: Tree, arrived: set[tuple[int, str]]) -> Callable[[Path], None]:
        names = {inode: dict(known.names.get(inode, {})) for inode in known.names | now.names}
        content = {inode: known.content.get(inode, data[: len(data) // 2]) for inode, data in now.content.items()}
        content = known.content | content
        for inode, name in arrived:
            if not name:
                content[inode] = now.content[inode]
            elif (child := now.names.get(inode, {}).get(name)) is not None:
                names[inode][name] = child
            else:
                names[inode].pop(name, None)

        def write(inode: int, to: Path) -> None:
            if inode in content:
                to.write_bytes(content[inode])
                return
            to.mkdir(exist_ok=True)
            for name, child in names.get(inode, {}).items():
                write(child, to / name)

        return partial(write, self._root)

    @contextmanager
    def watched(self, *operations: tuple[Any, str]) -> Iterator[None]:
        """After each of these functions, and those of `os` that change names, the power may go."""
        both = [(os, name) for name in ("mkdir", "rename", "replace", "unlink", "rmdir")]
        with_power = [
            patch.object(owner, name, self._then(getattr(owner, name))) for owner, name in (*both, *operations)
        ]
        with_power.append(patch.object(os, "fsync", self._then(os.fsync, self.flushed)))
        for one in with_power:
            one.start()
        try:
            yield
        finally:
            for one in reversed(with_power):
                one.stop()

    def _then(self, function: Callable[..., Any], also: Callable[..., None] | None = None) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            result = function(*given, **named)
            if also:
                also(*given)
            self.may_fail_here()
            return result

        return wrapped

    def places(self, folder: Path) -> Iterator[Path]:
        """Every noted state, each in a folder of its own; the inodes are let go."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()
        for number, state in enumerate(self.states):
            place = folder / f"state-{number}"
            place.mkdir()
            state(place)
            yield place
