"""The page: self-contained, without scripts, and every text on it is text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svdtrain.foundation.errors import UsageError
from svdtrain.reporting.charts import distribution, tally
from svdtrain.reporting.page import Advice, Page, Section, Sheet, Table, Tile, place_of, render, strip
from tests.reporting.pages import ReadPage

EVIL = "</title></style></figcaption>\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}"


def page(text: str, *, advice: bool = True) -> Page:
    frames_THWC = np.zeros((3, 20, 30, 3), np.uint8)
    section = Section(
        "samples",
        text,
        text,
        charts=(tally(text, [text, "a"], text), distribution(text, list(range(30)), text)),
        tables=(Table((text, "n"), ((text, text),), frozenset({"n"}), text),),
        sheets=(Sheet(text, (strip(frames_THWC, text, (text,), text),), text),),
    )
    told = (Advice(True, text, text), Advice(False, text, text)) if advice else ()
    return Page(text, text, text, (Tile(text, text, text),), told, (section,), text)


def test_evil_texts_stay_texts() -> None:
    read = ReadPage(render(page(EVIL)))
    assert "script" not in read.tags
    assert not read.handlers
    assert read.text("samples").count(EVIL) >= 8
    assert read.text("advice").count(EVIL) == 4


def test_a_page_takes_the_place_of_a_page_alone(tmp_path: Path) -> None:
    place = tmp_path / "mine.html"
    assert place_of(place) == place
    place.write_text("<title>mine</title>")
    with pytest.raises(UsageError, match="is there already, and no page of svdtrain's"):
        place_of(place)
    place.write_bytes(render(page(EVIL)))
    assert place_of(str(place)) == place


def test_nothing_is_loaded_from_elsewhere() -> None:
    read = ReadPage(render(page("x")))
    assert all(link.startswith(("#", "data:image/")) for link in read.links)
    assert not {"script", "link", "iframe", "object", "base", "form"} & read.tags
    raw = render(page("x")).decode()
    assert "default-src 'none'" in raw
    assert "@import" not in raw
    assert "url(" not in raw


def test_a_page_without_faults_says_so() -> None:
    assert "Nothing was found" in ReadPage(render(page("x", advice=False))).text("advice")
    assert "Nothing was found" not in ReadPage(render(page("x"))).text("advice")


def test_names_that_are_no_unicode_do_not_stop_it() -> None:
    assert "caf?.mp4" in render(page("caf\udce9.mp4")).decode()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 30), (300, 200)])
def test_a_strip_shows_its_frames_from_left_to_right(height: int, width: int) -> None:
    levels = (20, 120, 230)
    frames_THWC = np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])
    shown = Page(
        "t", "k", "a", (), (), (Section("s", "t", "i", sheets=(Sheet("", (strip(frames_THWC, "clip", ()),)),)),), ""
    )
    [(alt, picture_HWC)] = ReadPage(render(shown)).pictures["s"]
    assert alt == "Frames of clip"
    one = picture_HWC.shape[1] // 3
    middles = [picture_HWC[48, one * place + one // 2].mean() for place in range(3)]
    assert middles == pytest.approx(levels, abs=4)
