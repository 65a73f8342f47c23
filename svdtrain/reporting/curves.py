"""Curves over steps as a picture for a page, in SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from svdtrain.reporting.charts import Chart, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Points = list[tuple[int, float]]
"""(step, value), steps rising."""
WIDTH, LEFT, RIGHT, TOP, FLOOR = 400, 44, 392, 10, 172
"""In SVG units; curves stand between LEFT and RIGHT, TOP and FLOOR."""
MOST = 300
"""Points of a curve that are drawn."""
COLOURS = ("#1f4e79", "#3d7ea6", "#3a9a8c", "#7aa343", "#c99a2e", "#d2703c", "#a8434f", "#7b4f9e")
LEGEND, IN_A_ROW = 88, 4


def thinned(points: Points, most: int = MOST) -> Points:
    """At most so many, the first, the last, and the least and the greatest of each stretch among them: spikes stay."""
    if len(points) <= most:
        return points
    length = math.ceil(2 * len(points) / (most - 2))
    kept: Points = [points[0]]
    for start in range(0, len(points), length):
        part = points[start : start + length]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends - {points[0], points[-1]})
    return [*kept, points[-1]]


def curves(title: str, lines: Mapping[str, Points], note: str = "", *, even: float | None = None) -> Chart:
    """A curve a label, over one axis; numbers over more than two orders of magnitude are drawn by their logarithms.

    even: a value that is marked across, as of the base.
    """
    drawn = {label: thinned(points) for label, points in lines.items()}
    values = [value for points in drawn.values() for _, value in points] + ([] if even is None else [even])
    log = min(values) > 0 and max(values) / min(values) > 100
    way = math.log10 if log else float
    low, high = way(min(values)), way(max(values))
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    last = max(step for points in drawn.values() for step, _ in points) or 1

    def x(step: int) -> float:
        return LEFT + (RIGHT - LEFT) * step / last

    def y(value: float) -> float:
        return FLOOR - (FLOOR - TOP) * (way(value) - low) / (high - low)

    ticks = [10.0**tick for tick in _ticks(low, high, least=1)] if log else _ticks(low, high)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        for tick in ticks
    ]
    if even is not None:
        parts.append(f'<line class="even" x1="{LEFT}" x2="{RIGHT}" y1="{y(even):.1f}" y2="{y(even):.1f}"/>')
    for place, points in enumerate(drawn.values()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        parts.append(f'<polyline class="curve" stroke="{colour}" points="{path}"/>')
        if len(points) <= 12:
            parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2.6" fill="{colour}"/>' for s, v in points]
    parts += [
        f'<text x="{x(step):.1f}" y="{FLOOR + 18}" text-anchor="{side}">{words}</text>'
        for step, side, words in (
            (0, "start", "step 0"),
            (last // 2, "middle", f"{last // 2:,}"),
            (last, "end", f"{last:,}"),
        )
    ]
    parts += _legend(list(drawn)) if len(drawn) > 1 else []
    height = FLOOR + 30 + (18 * math.ceil(len(drawn) / IN_A_ROW) if len(drawn) > 1 else 0)
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return Chart(title, note, svg=Markup(head + "".join(parts) + "</svg>"))


def _legend(labels: Sequence[str]) -> list[str]:
    parts: list[str] = []
    for place, label in enumerate(labels):
        x, y = LEFT + LEGEND * (place % IN_A_ROW), FLOOR + 34 + 18 * (place // IN_A_ROW)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="4" rx="2" fill="{COLOURS[place % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 17}" y="{y + 6}">{escape(label)}</text>')
    return parts


def _ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers between two ends, three to six of them; whole ones where least is 1."""
    size = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = max(least, next(size * times for times in (10, 5, 2, 1) if size * times * 3 <= (high - low) * 1.001))
    step = step if least == 0 else float(math.ceil(step))
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
