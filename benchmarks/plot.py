"""Figures as a picture: horizontal bars in SVG, written by hand because that needs no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from .figures import Figure, shown

WIDTH = 900
ROW = 24
LEFT = 430
"""Where the bars begin, in pixels; names stand before."""
RIGHT = 110
"""Room for the numbers behind the longest bar."""


def bars(figures: Iterable[Figure]) -> str:
    """An SVG with one panel for each unit and `panel` name: a bar to the median, a thin line from the fastest to the
    slowest, a mark at the aim. What was not measured is not drawn. Empty where nothing was.
    """
    panels: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if figure.values:
            panels.setdefault((figure.panel, figure.unit), []).append(figure)
    body: list[str] = []
    top = 0
    for (name, _), members in panels.items():
        body += _panel(name, members, top)
        top += ROW * (len(members) + (2 if name else 1))
    if not body:
        return ""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" font-family="sans-serif"'
    return "\n".join(
        [f'{head} font-size="13">', '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"]
    )


def _panel(name: str, figures: Sequence[Figure], top: int) -> list[str]:
    longest = max(max(*figure.values, figure.aim or 0.0) for figure in figures) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    lines = []
    if name:
        lines.append(f'<text x="8" y="{top + 17}" font-weight="bold">{escape(name)}</text>')
        top += ROW
    for row, figure in enumerate(figures):
        y = top + row * ROW
        end = LEFT + figure.median * scale
        fastest, slowest = LEFT + min(figure.values) * scale, LEFT + max(figure.values) * scale
        aim = LEFT + (figure.aim or 0.0) * scale
        # The number stands behind the mark of the aim where it would be crossed by it.
        number = max(end, slowest) if aim > max(end, slowest) + RIGHT else max(end, slowest, aim)
        colour = "#d9822b" if figure.missed else "#3b7dd8"
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(figure.name)}</text>',
            f'<rect x="{LEFT}" y="{y + 5}" width="{end - LEFT:.1f}" height="14" fill="{colour}"/>',
            f'<path d="M{fastest:.1f} {y + 12}H{slowest:.1f}" stroke="black"/>',
            f'<text x="{number + 6:.1f}" y="{y + 17}">{shown(figure.median, figure.unit)}</text>',
        ]
        if figure.aim is not None:
            lines.append(f'<path d="M{aim:.1f} {y + 2}V{y + 22}" stroke="#c0392b" stroke-width="2"/>')
    return lines
