# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

from shipper_runtime.change import Change, as_text, plan_change, sentences
from shipper_runtime.fleet import plan_fleet
from shipper_runtime.page import as_page
from shipper_runtime.partition import partition

HOSTS = ["web%d.example.net" % number for number in range(240)]
ARCHIVES = ["a1", "a2"]


def fleet(partitions: int = 10, **more: dict[str, object]) -> dict[str, dict[str, object]]:
    hosts: dict[str, dict[str, object]] = {name: {"shipper_partitions": partitions} for name in (*HOSTS, *ARCHIVES)}
    for name, variables in more.items():
        hosts.setdefault(name, {"shipper_partitions": partitions}).update(variables)
    return hosts


def plan(partitions: object = None, consumers: list[str] | None = None, **more: dict[str, object]) -> Change:
    return plan_change(fleet(**more), HOSTS, ARCHIVES, partitions, consumers)


def test_hosts_move_that_the_program_puts_into_another_partition() -> None:
    change = plan(20)
    assert change.problems == []
    assert change.moving_hosts == [name for name in HOSTS if partition(name, 10) != partition(name, 20)]
    for side, count in ((change.now, 10), (change.then, 20)):
        assert side.hosts == [sum(partition(name, count) == number for name in HOSTS) for number in range(count)]
        assert sum(side.load.values()) == len(HOSTS)
    fullest = max(change.now.hosts)
    assert change.now.hosts[change.now.fullest] == fullest and change.now.mean == 24


def test_another_archive_host_moves_what_a_rollout_would_move() -> None:
    change = plan(consumers=["a1", "a2", "a3"])
    rolled = plan_fleet(fleet(a3={}), HOSTS, ["a1", "a2", "a3"]).read_partitions
    assert change.moving_hosts == []
    assert {(number, then) for _group, number, _now, then in change.moving_partitions} == {
        (number, "a3") for number in rolled["a3"]
    }
    gone = set(rolled["a3"])
    assert change.hosts_with_another_reader == sum(partition(name, 10) in gone for name in HOSTS)


def test_names_that_hosts_ship_as_and_pins_and_groups_count() -> None:
    more = {"web0.example.net": {"producer_hostname": "other"}, "a2": {"shipper_group": "second"}}
    change = plan(20, **more)
    assert sorted(change.now.readers) == sorted(change.then.readers) == ["archive", "second"]
    assert ("other" in change.moving_hosts) == (partition("other", 10) != partition("other", 20))
    # Both groups read everything, now and then.
    assert change.now.load == {"a1": 240, "a2": 240} and change.hosts_with_another_reader == 0
    pinned = plan(consumers=["a1", "a2", "a3"], a1={"consumer_read_partitions": [0, 1]})
    assert {number for number, host in pinned.then.readers["archive"].items() if host == "a1"} == {0, 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (plan("ten"), "shipper_new_partitions=ten: use a whole number, 0 or more"),
        (plan(70000), "then shipper_partitions=70000: use 65536 or fewer"),
        (plan(consumers=[]), "then there is no consumer"),
        (
            plan(2, a1={"consumer_read_partitions": [5]}),
            "then consumer_read_partitions=[5] for a1: use a list of whole",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_and_no_plan(change: Change, said: str) -> None:
    assert len(change.problems) == 1 and change.problems[0].startswith(said)
    assert (change.moving_hosts, change.now.hosts) == ([], [])


def test_no_change_moves_nothing() -> None:
    change = plan()
    assert (change.moving_hosts, change.moving_partitions, change.hosts_with_another_reader) == ([], [], 0)
    assert sentences(change)[0] == "0 of 240 hosts move to another partition (0.0 %)"


def test_the_table_has_a_line_for_each_partition() -> None:
    lines = as_text(plan(20, ["a1", "a2", "a3"]))
    rows = [line.split() for line in lines[lines.index(next(x for x in lines if x.startswith("PARTITION"))) + 1 :]]
    assert [row[0] for row in rows] == [str(number) for number in range(20)]
    assert rows[15][1:3] == ["-", "-"]
    assert any("stop the producers" in line for line in lines)
    assert as_text(plan(300))[-1] == "and 236 more partitions: see the page"


class Page(HTMLParser):
    """Tags that are open at the end, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("partitions", [0, 20, 1000])
def test_the_page_stands_alone_and_shows_each_partition(partitions: int) -> None:
    """Well-formed, without scripts or anything from elsewhere, in light and dark, with text for who cannot see."""
    text = as_page(plan(partitions, ["a1", "a3"]))
    page = Page(text)
    assert page.open == []
    tags = {tag for tag, _attributes in page.seen}
    assert not tags & {"script", "link", "img", "iframe"} and "url(" not in text and "://" not in text
    assert "@media (prefers-color-scheme: dark)" in text
    charts = [attributes for tag, attributes in page.seen if tag == "svg"]
    assert len(charts) == 3 and all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    shown = [attributes for tag, attributes in page.seen if tag == "rect" and attributes["class"] in ("then", "full")]
    assert 0 < len(shown) <= 500
    for _tag, attributes in page.seen:
        if "height" in attributes and "y" in attributes:
            assert float(attributes["y"] or 0) >= 0 and float(attributes["height"] or 0) >= 0
    assert "a3" in text


def test_a_hundred_thousand_names(capsys: pytest.CaptureFixture[str]) -> None:
    """In less than three seconds on a machine that does nothing else: the figure is printed, not asserted."""
    hosts = ["web%d.example.net" % number for number in range(100_000)]
    archives = ["a%d" % number for number in range(20)]
    inventory = {name: {"shipper_partitions": 200} for name in (*hosts, *archives)}
    began = time.process_time()
    change = plan_change(inventory, hosts, archives, 400, [*archives, "new"])
    pages = as_page(change), as_text(change)
    took = time.process_time() - began
    began = time.process_time()
    numbers = [partition(name, 400) for name in hosts]
    all_took = time.process_time() - began
    assert sum(number == 7 for number in numbers) == change.then.hosts[7]
    with capsys.disabled():
        print("\nthe plan of 100,000 hosts, 200 to 400 partitions, with its page: %.2f s of CPU" % took)
        print("the partitions of 100,000 hosts, one by one as the filter computes them: %.2f s of CPU" % all_took)
    assert sum(change.then.hosts) == 100_000 and all(pages)
    assert re.search(r"\d+ of 100000 hosts move", pages[1][7])
