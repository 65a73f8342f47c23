"""Charts: every value is counted once, whatever its shape, and no text of the data becomes markup."""

from __future__ import annotations

import re

import numpy as np
import pytest

from svdtrain.reporting.charts import FLOOR, MOST_BARS, TOP, Chart, counted, distribution, number, tally


def titles(chart: Chart) -> list[tuple[str, int]]:
    found = re.findall(r"<title>([^<]*): ([\d,]+)</title>", str(chart.svg))
    return [(span, int(count.replace(",", ""))) for span, count in found]


def test_few_values_are_bars_in_their_order() -> None:
    chart = distribution("fps", [30, 25, 30, 7.5, 29.97], "fps")
    assert [(bar.label, bar.count) for bar in chart.bars] == [("7.5 fps", 1), ("25 fps", 1), ("30 fps", 3)]
    assert [bar.share for bar in chart.bars] == pytest.approx([1 / 3, 1 / 3, 1])
    assert chart.svg is None


def test_many_values_are_a_histogram_that_counts_each_once() -> None:
    values = np.random.default_rng(0).normal(50, 9, 1000).tolist()
    chart = distribution("Motion", values, "%")
    assert not chart.bars
    assert sum(count for _, count in titles(chart)) == 1000
    assert (
        chart.note
        == f"median {number(float(np.median(values)))} %, from {number(min(values))} to {number(max(values))}"
    )
    heights = [float(height) for height in re.findall(r'class="bar".*?height="([\d.]+)"', str(chart.svg))]
    assert max(heights) == FLOOR - TOP


def test_far_values_share_the_last_bar_and_are_not_lost() -> None:
    values = [*np.random.default_rng(0).normal(10, 1, 200).tolist(), 4000.0, 5000.0]
    found = titles(distribution("Sharpness", values))
    assert sum(count for _, count in found) == 202
    assert found[-1] == (found[-1][0], 2)
    assert found[-1][0].endswith("and more")
    assert len(found) > 5


def test_the_most_frequent_labels_are_shown_and_the_others_counted() -> None:
    chart = tally("Sizes", [str(size) for size in range(20) for _ in range(size)])
    assert len(chart.bars) == MOST_BARS
    assert chart.bars[0].label == "19"
    assert chart.bars[-1].label == f"{20 - 1 - (MOST_BARS - 1)} others"
    assert sum(bar.count for bar in chart.bars) == sum(range(20))


def test_a_title_is_text() -> None:
    svg = str(distribution('<b>"x', list(range(20))).svg)
    assert "<b>" not in svg
    assert 'aria-label="&lt;b&gt;&#34;x"' in svg


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7.0, "7"), (1280, "1,280"), (0.012345, "0.0123"), (29.97, "30"), (1234.5, "1,234")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_one_is_singular() -> None:
    assert [counted(count, "clip") for count in (0, 1, 2, 1024)] == ["0 clips", "1 clip", "2 clips", "1,024 clips"]
