"""Distributions as pictures for a page: bars per value where there are few values, else a histogram in SVG."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BARS = 8
BINS = 28
WIDTH, HEIGHT, FLOOR, TOP = 320, 118, 92, 14
"""In SVG units; bars stand between TOP and FLOOR."""
FAR = 5
"""How many times as far from the median as nine of ten values a histogram reaches."""


@dataclass(frozen=True)
class Bar:
    """One value, or several small ones, of a distribution."""

    label: str
    count: int
    share: float
    """Of the longest bar, in [0, 1]."""


@dataclass(frozen=True)
class Chart:
    """A distribution under its title: bars or a drawing."""

    title: str
    note: str
    bars: tuple[Bar, ...] = ()
    svg: Markup | None = None


def number(value: float) -> str:
    """Three significant digits, with thousands separators: 0.0123, 4.5, 1,280."""
    if value == round(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{float(f'{value:.3g}'):g}"


def counted(count: int, noun: str) -> str:
    """1 clip, 2 clips, 1,024 clips."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def tally(title: str, labels: Iterable[str], note: str = "", *, most: int = MOST_BARS) -> Chart:
    """A bar for each of the most frequent labels; the others are one bar."""
    counts = Counter(labels)
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = (common, []) if len(common) <= most else (common[: most - 1], common[most - 1 :])
    if rest:
        shown.append((f"{len(rest):,} others", sum(count for _, count in rest)))
    longest = max((count for _, count in shown), default=1)
    return Chart(title, note, tuple(Bar(label, count, count / longest) for label, count in shown))


def distribution(title: str, values: Sequence[float], unit: str = "") -> Chart:
    """Bars where the values are few, in their own order; else a histogram. The note tells the median and the range."""
    array = np.asarray(values, np.float64)
    low, middle, high = (number(value) for value in np.percentile(array, (0, 50, 100)))
    unit = f" {unit}" if unit else ""
    counts = Counter(map(number, np.sort(array).tolist()))
    if len(counts) <= MOST_BARS:
        longest = max(counts.values())
        return Chart(title, "", tuple(Bar(name + unit, count, count / longest) for name, count in counts.items()))
    note = f"median {middle}{unit}, from {low} to {high}"
    return Chart(title, note, svg=_histogram(title, array, unit))


def _histogram(title: str, values: np.ndarray, unit: str) -> Markup:
    """Bins of equal width; what lies far beyond the most is counted in the last one."""
    middle, most, high = np.percentile(values, (50, 90, 100))
    far = middle + FAR * (most - middle)
    cut = values.min() < far < high
    counts, edges = np.histogram(values.clip(None, far) if cut else values, BINS)
    step = WIDTH / BINS
    bars = []
    for place, count in enumerate(counts.tolist()):
        last = cut and place == BINS - 1
        span = f"{number(edges[place])} {'and more' if last else '– ' + number(edges[place + 1])}{unit}"
        height = max(1.5, (FLOOR - TOP) * count / counts.max()) if count else 0
        bars.append(
            f'<rect class="bar" x="{place * step + 0.75:.2f}" y="{FLOOR - height:.2f}" width="{step - 1.5:.2f}" '
            f'height="{height:.2f}" rx="1"><title>{escape(span)}: {count:,}</title></rect>'
        )
    ends = number(float(edges[0])), number(float(edges[BINS // 2])), number(float(edges[-1])) + ("+" if cut else "")
    ticks = zip((0, WIDTH / 2, WIDTH), ("start", "middle", "end"), ends, strict=True)
    texts = [f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{side}">{escape(text)}</text>' for x, side, text in ticks]
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{FLOOR + 0.5}" y2="{FLOOR + 0.5}"/>'
    most = f'<text x="{WIDTH}" y="9" text-anchor="end">{counts.max():,} clips at most</text>'
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join([*bars, axis, *texts, most]) + "</svg>")
