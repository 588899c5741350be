# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a change as one page of HTML, which needs nothing from elsewhere and no script. Pure; controller only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .change import Change, Side, percent, sentences, summary

_WIDTH = 920
_LEFT = 56
_HEIGHT = 170
# More bars than this cannot be told apart: neighbours share one then.
_BARS_MOST = 430
_NAMES_SHOWN = 500
_READERS_SHOWN = 60

_STYLE = """
:root { --paper: #ffffff; --ink: #1b2430; --soft: #566070; --line: #d5dae1; --bar: #2b62c4; --full: #c2410c;
  --then: #0f766e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #10151c; --ink: #e8edf4; --soft: #a9b5c5; --line: #323d4b; --bar: #7aa7f5; --full: #fb923c;
    --then: #5eead4; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif;
  max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.soft, caption, figcaption { color: var(--soft); }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.number, th.number { text-align: right; }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 13px; } svg text.soft { fill: var(--soft); }
.now { fill: var(--bar); } .then { fill: var(--then); } .full { fill: var(--full); }
.axis { stroke: var(--line); } .even { stroke: var(--ink); stroke-dasharray: 5 4; }
summary { cursor: pointer; margin-top: 1rem; } ul.names { columns: 3; font-size: .85rem; padding-left: 1.2rem; }
code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .9em; }
"""


def as_page(change: Change) -> str:
    """The whole page."""
    same_scale = max([*change.now.hosts, *change.then.hosts, 1])
    title = "What would move"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>%s: %s</title><style>%s</style></head>" % (title, escape(_headline(change)), _STYLE),
            "<body>",
            "<h1>%s</h1>" % title,
            "<p>%s</p>" % escape(_headline(change)),
            '<p class="soft">Every host ships its log lines to one partition, which follows from its name alone; '
            "every partition is archived by one archive host. Nothing was changed to make this page: it compares the "
            "inventory as it is (now) with what was asked for (then).</p>",
            _table(("", "now", "then"), summary(change)),
            "<ul>%s</ul>" % "".join("<li>%s</li>" % escape(_capital(said)) for said in sentences(change)),
            "<h2>Hosts in each partition</h2>",
            '<p class="soft">One bar is one partition, its height the number of hosts in it. The dashed line is an '
            "even share; the fullest partition has another colour. Both charts have the same scale.</p>",
            _bars(change.now, "now", same_scale),
            _bars(change.then, "then", same_scale),
            "<h2>Hosts of each archive host</h2>",
            '<p class="soft">How many hosts\' lines each archive host writes, now above and then below.</p>',
            _readers(change),
            _moving_partitions(change),
            _moving_hosts(change),
            _partitions(change),
            "</body></html>",
            "",
        ]
    )


def _headline(change: Change) -> str:
    now, then = change.now, change.then
    parts = []
    if change.other_partitions:
        parts.append("%d partitions instead of %d" % (then.partitions, now.partitions))
    gone, come = now.load.keys() - then.load.keys(), then.load.keys() - now.load.keys()
    if come:
        parts.append("%d more archive host%s (%s)" % (len(come), _s(come), _few(come)))
    if gone:
        parts.append("without the archive host%s %s" % (_s(gone), _few(gone)))
    what = ", ".join(parts) or "nothing else"
    return "A fleet of %d hosts with %s: %s of the hosts move to another partition." % (
        change.host_count, what, percent(len(change.moving_hosts), change.host_count),
    )  # fmt: skip


def _bars(side: Side, kind: str, scale: int) -> str:
    """A chart of hosts by partition."""
    step = -(-len(side.hosts) // _BARS_MOST)
    heights = [max(side.hosts[begin : begin + step]) for begin in range(0, len(side.hosts), step)]
    room = (_WIDTH - _LEFT) / len(heights)
    thick = max(room - min(4.0, room / 5), 0.6)
    parts = []
    for index, height in enumerate(heights):
        first = index * step
        name = "p%d" % first if step == 1 else "p%d to p%d" % (first, min(first + step, len(side.hosts)) - 1)
        tall = height / scale * _HEIGHT
        parts.append(
            '<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %s%d hosts</title></rect>'
            % (
                "full" if side.fullest // step == index else kind,
                _LEFT + index * room, 20 + _HEIGHT - tall, thick, tall, name, "up to " if step > 1 else "", height,
            )
        )  # fmt: skip
    every = max(1, -(-len(heights) // 20))
    for index in range(0, len(heights), every):
        parts.append(
            '<text class="soft" x="%.1f" y="%d" text-anchor="middle">%d</text>'
            % (_LEFT + index * room + thick / 2, _HEIGHT + 38, index * step)
        )
    even = 20 + _HEIGHT - side.mean / scale * _HEIGHT
    for value in (0, scale):
        y = 20 + _HEIGHT - value / scale * _HEIGHT
        parts.append('<line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>' % (_LEFT, _WIDTH, y, y))
        parts.append('<text class="soft" x="%d" y="%.1f" text-anchor="end">%d</text>' % (_LEFT - 8, y + 4, value))
    parts.append('<line class="even" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>' % (_LEFT, _WIDTH, even, even))
    label = "%s: hosts in each of %d partitions" % (_capital(kind), len(side.hosts))
    parts.append('<text x="%d" y="13">%s</text>' % (_LEFT, label))
    caption = "%s: p%d is the fullest with %d hosts (%s), an even share is %.1f (%s)%s." % (
        _capital(kind), side.fullest, side.hosts[side.fullest], percent(side.hosts[side.fullest], sum(side.hosts)),
        side.mean, percent(1, len(side.hosts)),
        "; one bar stands for %d partitions, and shows the fullest of them" % step if step > 1 else "",
    )  # fmt: skip
    return _figure(parts, _HEIGHT + 46, label, caption)


def _readers(change: Change) -> str:
    names = sorted(change.now.load.keys() | change.then.load.keys())
    shown = names[:_READERS_SHOWN]
    scale = max([*change.now.load.values(), *change.then.load.values(), 1])
    left = 230
    parts = []
    for row, name in enumerate(shown):
        y = row * 42
        parts.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 10, y + 23, escape(_short(name))))
        for line, (kind, side) in enumerate((("now", change.now), ("then", change.then))):
            held = side.load.get(name)
            long = (held or 0) / scale * (_WIDTH - left - 170)
            top = y + 4 + line * 16
            parts.append('<rect class="%s" x="%d" y="%d" width="%.1f" height="13"/>' % (kind, left, top, long))
            told = "%s: not an archive host" % kind if held is None else "%s: %d hosts" % (kind, held)
            parts.append('<text class="soft" x="%.1f" y="%d">%s</text>' % (left + long + 6, top + 11, told))
    more = len(names) - len(shown)
    caption = "And %d more archive hosts." % more if more else ""
    return _figure(parts, max(len(shown), 1) * 42 + 6, "Hosts of each archive host, now and then", caption)


def _figure(parts: Iterable[str], height: int, label: str, caption: str) -> str:
    svg = '<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg>' % (
        _WIDTH, height, escape(label, quote=True), "".join(parts),
    )  # fmt: skip
    return "<figure>%s<figcaption>%s</figcaption></figure>" % (svg, escape(caption))


def _moving_partitions(change: Change) -> str:
    if not change.moving_partitions:
        return ""
    rows = [(group, "p%d" % number, old, new) for group, number, old, new in change.moving_partitions]
    return "<details><summary>Partitions that move to another archive host (%d)</summary>%s</details>" % (
        len(rows), _table(("group", "partition", "now", "then"), rows),
    )  # fmt: skip


def _moving_hosts(change: Change) -> str:
    names = change.moving_hosts
    if not names:
        return ""
    more = len(names) - _NAMES_SHOWN
    shown = "".join("<li>%s</li>" % escape(name) for name in names[:_NAMES_SHOWN])
    rest = "<p>And %d more.</p>" % more if more > 0 else ""
    head = "<summary>Hosts that move to another partition (%d)</summary>" % len(names)
    return "<details>%s<ul class=names>%s</ul>%s</details>" % (head, shown, rest)


def _partitions(change: Change) -> str:
    rows = []
    for number in range(max(len(change.now.hosts), len(change.then.hosts))):
        cells = ["p%d" % number]
        for side in (change.now, change.then):
            there = number < len(side.hosts)
            readers = [side.readers[group].get(number, "") for group in sorted(side.readers)]
            cells += [str(side.hosts[number]) if there else "", ", ".join(readers) if there else ""]
        rows.append(cells)
    head = ("partition", "hosts now", "archive host now", "hosts then", "archive host then")
    return "<details><summary>All partitions (%d)</summary>%s</details>" % (len(rows), _table(head, rows, (1, 3)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>%s</tr>" % "".join(
            "<%s%s>%s</%s>" % (tag, " class=number" if column in numbers else "", escape(cell), tag)
            for column, cell in enumerate(cells)
        )

    return "<table>%s%s</table>" % (line(head, "th"), "".join(line(row, "td") for row in rows))


def _few(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:3]) + (" and %d more" % (len(first) - 3) if len(first) > 3 else "")


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def _s(names: Iterable[str]) -> str:
    return "" if len(list(names)) == 1 else "s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
