"""The changes of an adapter as a drawing: a pair of bars a block, the look (spatial) and the motion (temporal)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from markupsafe import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = {"spatial": "#4c78a8", "temporal": "#e4823a"}
LEFT, WIDTH, ROW, TOP = 120, 420, 17, 52


class BlockChange(Protocol):
    """A half of a block."""

    @property
    def block(self) -> str:
        """Its name."""
        ...

    @property
    def half(self) -> str:
        """spatial or temporal."""
        ...

    @property
    def norm(self) -> float:
        """How much it changes."""
        ...

    @property
    def effective_rank(self) -> float:
        """In how many directions."""
        ...


def adapter_chart(title: str, rows: Sequence[BlockChange]) -> str:
    """An SVG of bars, longest = the largest change, each with its number and effective rank."""
    largest = max((row.norm for row in rows), default=0.0) or 1.0
    height = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720" height="{height}" '
        'font-family="sans-serif" font-size="11" role="img">',
        f'<rect width="720" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
        '<text x="8" y="36" fill="#555555">Frobenius norm of the change of each block; in brackets the effective rank</text>',
    ]
    for place, (half, colour) in enumerate(COLOURS.items()):
        x = 520 + 90 * place
        parts.append(f'<rect x="{x}" y="26" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="36">{half}</text>')
    named = ""
    for place, row in enumerate(rows):
        y = TOP + ROW * place
        if row.block != named:
            parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(row.block)}</text>')
            named = row.block
        length = WIDTH * row.norm / largest
        colour = COLOURS.get(row.half, "#888888")
        parts.append(f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 4}" fill="{colour}"/>')
        text = f"{row.norm:.3g} ({row.effective_rank:.1f})"
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 12}" fill="#333333">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])
