"""YAML in which a few lines cannot stand for more values, or for deeper ones, than there is memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

MOST_ALIASES = 20
"""Of one file: doubling and tripling, so many make a few thousand values of one."""
DEEPEST = 40
"""Lists and tables within each other."""


@cache
def bounded(loader: type[Any]) -> type[Any]:
    """A yaml.SafeLoader, or one like it, that raises a YAMLError for more of them, and for a tag that lies."""

    class Bounded(loader):
        def __init__(self, stream: object) -> None:
            super().__init__(stream)
            self.aliases, self.inside = 0, list[str | None]()

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()
            self.aliases += isinstance(event, yaml.AliasEvent)
            faults = {
                f"more than {MOST_ALIASES} aliases": self.aliases > MOST_ALIASES,
                "an alias of what it stands in": isinstance(event, yaml.AliasEvent) and event.anchor in self.inside,
                f"more than {DEEPEST} lists and tables within each other": len(self.inside) > DEEPEST,
            }
            if fault := next((what for what, found in faults.items() if found), ""):
                raise yaml.MarkedYAMLError(problem=fault, problem_mark=event.start_mark)
            self.inside.append(event.anchor if isinstance(event, yaml.NodeEvent) else None)
            try:
                return super().compose_node(parent, index)
            finally:
                self.inside.pop()

        def construct_document(self, node: yaml.Node) -> object:
            try:
                return super().construct_document(node)
            except (ValueError, LookupError, AttributeError, TypeError) as error:  # !!int '', !!timestamp x
                problem = f"a value is not what its tag says ({error})"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    return Bounded
