# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts for docs/performance: SVG that is readable on light and on dark pages, and needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_STYLE = """
  text { font: 13px sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: bold }
  .note { font-size: 11px; fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .ours { fill: #1a7f37 } .peer { fill: #8c959f } .limit { fill: #0969da }
  .line0 { stroke: #1a7f37 } .line1 { stroke: #0969da } .line2 { stroke: #bc4c00 } .line3 { stroke: #8250df }
  .dot0 { fill: #1a7f37 } .dot1 { fill: #0969da } .dot2 { fill: #bc4c00 } .dot3 { fill: #8250df }
  polyline { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #8d96a0 } .grid { stroke: #30363d }
    .ours { fill: #3fb950 } .peer { fill: #6e7681 } .limit { fill: #58a6ff }
    .line0 { stroke: #3fb950 } .line1 { stroke: #58a6ff } .line2 { stroke: #f0883e } .line3 { stroke: #a371f7 }
    .dot0 { fill: #3fb950 } .dot1 { fill: #58a6ff } .dot2 { fill: #f0883e } .dot3 { fill: #a371f7 }
  }
"""
_LEFT, _BAR, _GAP, _WIDTH = 300, 20, 10, 860


def bars(title: str, note: str, unit: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """A bar a row, on a logarithmic scale: label, value, and one of ours, peer and limit."""
    least = min(value for _label, value, _kind in rows)
    most = max(value for _label, value, _kind in rows)
    low, high = math.floor(math.log10(least)), math.log10(most)
    room = _WIDTH - _LEFT - 110
    top = 64
    height = top + len(rows) * (_BAR + _GAP) + 30

    def across(value: float) -> float:
        return max(2.0, (math.log10(value) - low) / max(high - low, 0.1) * room)

    parts = []
    for power in range(low, math.floor(high) + 1):
        x = _LEFT + across(10.0**power)
        parts.append('<line class="grid" x1="%.0f" y1="%d" x2="%.0f" y2="%d"/>' % (x, top - 6, x, height - 24))
        parts.append('<text class="note" x="%.0f" y="%d" text-anchor="middle">%g</text>' % (x, height - 8, 10.0**power))
    for number, (label, value, kind) in enumerate(rows):
        y = top + number * (_BAR + _GAP)
        parts.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (_LEFT - 10, y + 15, escape(label)))
        parts.append(
            '<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>' % (kind, _LEFT, y, across(value), _BAR)
        )
        shown = "%.0f" % value if value >= 100 else "%.3g" % value
        parts.append('<text x="%.1f" y="%d">%s %s</text>' % (_LEFT + across(value) + 6, y + 15, shown, escape(unit)))
    return _page(title, note, _WIDTH, height, parts)


def curves(
    title: str, note: str, x_name: str, y_name: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]
) -> str:
    """Lines on two logarithmic scales, at most four: a name and its points each."""
    points = [point for _name, some in series for point in some]
    x_low, x_high = (f(math.log10(x) for x, _y in points) for f in (min, max))
    y_low, y_high = (f(math.log10(y) for _x, y in points) for f in (min, max))
    y_low, y_high = math.floor(y_low), math.ceil(y_high)
    left, top, width, height = 80, 64, 560, 300

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (math.log10(x) - x_low) / max(x_high - x_low, 0.1) * width,
            top + height - (math.log10(y) - y_low) / max(y_high - y_low, 0.1) * height,
        )

    parts = []
    for power in range(y_low, y_high + 1):
        _x, y = place(10**x_low, 10.0**power)
        parts.append('<line class="grid" x1="%d" y1="%.0f" x2="%d" y2="%.0f"/>' % (left, y, left + width, y))
        parts.append('<text class="note" x="%d" y="%.0f" text-anchor="end">%g</text>' % (left - 8, y + 4, 10.0**power))
    for x in sorted({x for x, _y in points}):
        at, _y = place(x, 10**y_low)
        parts.append('<text class="note" x="%.0f" y="%d" text-anchor="middle">%g</text>' % (at, top + height + 18, x))
    parts.append(
        '<text x="%d" y="%d" text-anchor="middle">%s</text>' % (left + width // 2, top + height + 38, escape(x_name))
    )
    parts.append('<text x="%d" y="%d">%s</text>' % (left - 60, top - 10, escape(y_name)))
    for number, (name, some) in enumerate(series):
        placed = [place(x, y) for x, y in some]
        parts.append(
            '<polyline class="line%d" points="%s"/>' % (number, " ".join("%.1f,%.1f" % each for each in placed))
        )
        parts += ['<circle class="dot%d" cx="%.1f" cy="%.1f" r="3.5"/>' % (number, x, y) for x, y in placed]
        y = top + 16 + 22 * number
        parts.append('<rect class="dot%d" x="%d" y="%d" width="12" height="12"/>' % (number, left + width + 20, y - 10))
        parts.append('<text x="%d" y="%d">%s</text>' % (left + width + 38, y + 1, escape(name)))
    return _page(title, note, _WIDTH, top + height + 50, parts)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line of least squares through the points' logarithms: 1 is in proportion, 0 is flat."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x_mean = sum(x for x, _y in logs) / len(logs)
    y_mean = sum(y for _x, y in logs) / len(logs)
    return sum((x - x_mean) * (y - y_mean) for x, y in logs) / sum((x - x_mean) ** 2 for x, _y in logs)


def _page(title: str, note: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">\n'
        "<title>%s</title>\n<style>%s</style>\n"
        '<text class="title" x="16" y="24">%s</text>\n<text class="note" x="16" y="42">%s</text>\n%s\n</svg>\n'
        % (width, height, width, height, escape(title), _STYLE, escape(title), escape(note), "\n".join(parts))
    )
