# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns, spans and sizes as people read them: pure, and without imports, for the commands and for the controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Columns two spaces apart, those of right to the right; no white space ends a line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    to_the_right = frozenset(right)
    lines = (
        "  ".join(
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in (head, *rows)
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def span(seconds: float | None, more: str = "") -> str:
    """So long, in its largest unit of which there are two; "-" where that is not known."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return "%d%s%s" % (seconds // length, unit, more)
    return "%ds%s" % (seconds, more)


def size(count: int | None) -> str:
    """So many bytes, roughly; "-" where that is not known."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return "%d%s" % (value, unit) if value == int(value) else "%.1f%s" % (value, unit)
