"""The reports of the four recipes in docs: the page says what was kept, and each report says it, too."""

from __future__ import annotations

import re

import pytest

from scripts.recipe_reports import PAGE, RECIPES, REPORTS, kept, with_table
from svdtrain.commands.report import LARGEST
from tests.reporting.pages import ReadPage


def test_the_page_says_what_was_kept() -> None:
    assert list(kept()) == list(RECIPES)
    assert PAGE.read_text() == with_table(PAGE.read_text(), kept()), "PYTHONPATH=. python scripts/recipe_reports.py"


@pytest.mark.parametrize("name", RECIPES)
def test_a_report_says_it_too_and_loads_nothing(name: str) -> None:
    written, row = (REPORTS / f"{name}.html").read_bytes(), kept()[name]
    page = ReadPage(written)
    assert len(written) < LARGEST
    assert all(link.startswith(("#", "data:", "https://github.com/comfyanonymous")) for link in page.links)
    for said in (row["verdict"]["sentence"].partition(": ")[2], *row["verdict"]["findings"]):
        assert said in page.text("head")
    assert row["choice"] in page.text("choice")
    without_media = re.sub(r"data:[^\"]*", "", written.decode())
    assert "/work" not in without_media
    assert "/tmp" not in without_media
