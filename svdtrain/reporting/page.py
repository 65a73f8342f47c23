"""One self-contained HTML page: what stands on it as plain values, and the template that sets it."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup
from PIL import Image

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    import numpy as np

    from svdtrain.reporting.charts import Chart


OURS, HEAD = " · svdtrain</title>".encode(), 4096
"""What the template's head says, within so many bytes."""


@dataclass(frozen=True)
class Tile:
    """A number that is seen first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Advice:
    """A fault of the data and its mend."""

    serious: bool
    """Training stops or learns the wrong thing; else it only suffers."""
    fault: str
    mend: str


@dataclass(frozen=True)
class Table:
    """Rows of text; columns named in `numbers` are set to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """Frames of one clip in a picture, and what is known of it."""

    picture: str
    """A data URI."""
    width: int
    height: int
    title: str
    facts: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """Strips under a title."""

    title: str
    strips: tuple[Strip, ...]
    note: str = ""


@dataclass(frozen=True)
class Film:
    """A video and its middle frame, as data URIs; without the video the frame stands alone."""

    label: str
    poster: str
    width: int
    height: int
    video: str = ""


@dataclass(frozen=True)
class Screening:
    """Videos of one input, which play in step."""

    title: str
    films: tuple[Film, ...]
    note: str = ""


@dataclass(frozen=True)
class Listing:
    """A command, code or a file, letter by letter."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A sentence, and where the reader may look further."""

    text: str
    link: str = ""
    """Ours, never a stranger's."""


@dataclass(frozen=True)
class Verdict:
    """What the page comes to, in plain words."""

    level: str
    """good, mild or serious."""
    says: str
    lines: tuple[str, ...] = ()
    next: str = ""
    marks: tuple[str, ...] = ()
    """What is missing or damaged."""


@dataclass(frozen=True)
class Section:
    """A chapter of the page; what is empty is left out."""

    anchor: str
    title: str
    intro: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    wide: bool = False
    """Strips of many frames, or wide drawings: one to a row."""
    screenings: tuple[Screening, ...] = ()
    listings: tuple[Listing, ...] = ()
    paragraphs: tuple[Paragraph, ...] = ()


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    kind: str
    about: str
    tiles: tuple[Tile, ...]
    advice: tuple[Advice, ...]
    sections: tuple[Section, ...]
    footer: str
    nothing_wrong: str = field(default="Nothing was found that needs mending.")
    verdict: Verdict | None = None
    """Of a report."""


def render(page: Page) -> bytes:
    """The page as UTF-8 HTML. It loads nothing; every text on it is escaped.

    It runs nothing, but for a report's own script, which its policy names by hash: no other would run.
    """
    pages = packaged("assets") / "pages"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pages),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (pages / "report.js").read_text()
    mark = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html" if page.verdict else "inspect.html")
    return template.render(page=page, script=Markup(script), script_mark=mark).encode("utf-8", "replace")


def place_of(out: str | Path) -> Path:
    """Where a page is to be written: over an earlier one, and over nothing else. Raises UsageError."""
    place = Path(out).expanduser()
    if place.suffix.lower() not in (".html", ".htm") or place.is_dir():
        raise UsageError(f"out={out}: the page is an html file", "out=page.html")
    if place.is_file() and OURS not in place.read_bytes()[:HEAD]:
        raise UsageError(f"out={out}: is there already, and no page of svdtrain's", "choose another name")
    return place


def picture_uri(frame_HWC: np.ndarray, width: int) -> str:
    """A frame as a JPEG of at most `width` pixels."""
    picture = Image.fromarray(frame_HWC)
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
    return _jpeg(picture)


def strip(frames_THWC: np.ndarray, title: str, facts: tuple[str, ...], caption: str = "", *, height: int = 96) -> Strip:
    """A Strip of uint8 RGB frames [T, H, W, 3] from left to right, each `height` pixels high."""
    gap = 2
    small = [_sized(frame_HWC, height) for frame_HWC in frames_THWC]
    width = sum(picture.width for picture in small) + gap * (len(small) - 1)
    row = Image.new("RGB", (width, height), (127, 127, 127))
    left = 0
    for picture in small:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return Strip(_jpeg(row), width, height, title, facts, caption)


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sized(frame_HWC: np.ndarray, height: int) -> Image.Image:
    """Small pictures keep their pixels visible when they are enlarged."""
    picture = Image.fromarray(frame_HWC)
    way = Image.Resampling.NEAREST if picture.height * 2 <= height else Image.Resampling.LANCZOS
    return picture.resize((max(1, round(picture.width * height / picture.height)), height), way)
