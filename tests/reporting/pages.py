"""A page as a reader has it: its texts by chapter, its pictures, and whether its tags are closed."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "line", "rect", "br", "link", "input"}
"""Tags without an end; SVG's close themselves."""


class ReadPage(HTMLParser):
    """What stands where. Fails on a tag that is not closed, or closed twice."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.chapter = "head"
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.pictures: dict[str, list[tuple[str, np.ndarray]]] = {}
        self.feed(page.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.handlers += [name for name in values if name.startswith("on")]
        self.links += [values[name] or "" for name in ("src", "href") if name in values]
        if tag == "section":
            self.chapter = values.get("id") or ""
        if tag == "img":
            data = (values["src"] or "").removeprefix("data:image/jpeg;base64,")
            picture_HWC = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            assert picture_HWC.shape[:2] == (int(values["height"] or 0), int(values["width"] or 0))
            self.pictures.setdefault(self.chapter, []).append((values["alt"] or "", picture_HWC))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 (the parser's)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "section":
            self.chapter = "foot"

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.setdefault(self.chapter, []).append(data.strip())

    def text(self, chapter: str) -> str:
        return "\n".join(self.texts.get(chapter, []))
