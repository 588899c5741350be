# SPDX-License-Identifier: GPL-3.0-or-later
"""What another number of partitions, or other archive hosts, would move. Pure; used on the controller only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from .fleet import PARTITIONS, READ_PARTITIONS, Inventory, plan_fleet, whole_number
from .identities import GROUPS, HOSTNAME, group_of, hostname, named
from .partition import fnv1a_32
from .tables import table

_ROWS_SHOWN = 64


@dataclass
class Side:
    """A fleet as it is, or as it would be: hosts are counted for each partition, readers[group][partition] is the
    archive host; load are the hosts whose lines each archive host gets."""

    partitions: int
    hosts: list[int] = field(default_factory=list)
    readers: dict[str, dict[int, str]] = field(default_factory=dict)
    load: dict[str, int] = field(default_factory=dict)

    @property
    def fullest(self) -> int:
        """The partition with the most hosts, the first of several."""
        return self.hosts.index(max(self.hosts))

    @property
    def emptiest(self) -> int:
        """The partition with the fewest hosts."""
        return self.hosts.index(min(self.hosts))

    @property
    def mean(self) -> float:
        """Hosts of a partition if they were even."""
        return sum(self.hosts) / len(self.hosts)


@dataclass
class Change:
    """Both sides; the hosts whose partition is another one then; the partitions of each group that are there on both
    sides and get another reader, as (group, partition, now, then); and how many hosts' lines go to another archive host
    then. problems are sentences for the operator, and then there is nothing else."""

    now: Side
    then: Side
    moving_hosts: list[str] = field(default_factory=list)
    moving_partitions: list[tuple[str, int, str, str]] = field(default_factory=list)
    hosts_with_another_reader: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def host_count(self) -> int:
        return sum(self.now.hosts)

    @property
    def other_partitions(self) -> bool:
        """Whether the number of partitions is another one."""
        return self.now.partitions != self.then.partitions


def plan_change(
    inventory: Inventory,
    producers: Sequence[str],
    consumers: Sequence[str],
    new_partitions: Any = None,
    new_consumers: Sequence[str] | None = None,
    default_partitions: Any = 0,
) -> Change:
    """Compare a fleet with what it would be; inventory, producers and consumers are as plan_fleet() takes them.

    Archive hosts that are not in the inventory yet get a share in the group of those that are, without pins.
    """
    plans = [plan_fleet(inventory, producers, consumers, default_partitions)]
    count = plans[0].partitions if new_partitions is None else whole_number(new_partitions)
    empty = Change(Side(0), Side(0), problems=plans[0].problems)
    if count is None:
        text = "shipper_new_partitions=%s: use a whole number, 0 or more" % (new_partitions,)
        empty.problems = [*empty.problems, text]
    if empty.problems or count is None:
        return empty
    after = list(dict.fromkeys(consumers if new_consumers is None else new_consumers))
    # Whoever ships is told the new count: to look at one of them is enough.
    changed = _changed(inventory, [*producers[:1], *after], consumers, count)
    plans.append(plan_fleet(changed, producers[:1], after, count))
    if plans[1].problems:
        # Of what is thought of, and not of what is.
        empty.problems = ["then " + problem for problem in plans[1].problems]
        return empty
    names = [hostname(inventory[host], host) for host in producers]
    hashes = [fnv1a_32(name.encode()) for name in names]
    numbers = [[value % max(plan.partitions, 1) for value in hashes] for plan in plans]
    sides = [
        _side(plan.partitions, of_hosts, plan.read_partitions, variables)
        for plan, of_hosts, variables in zip(plans, numbers, (inventory, changed))
    ]
    change = Change(sides[0], sides[1])
    change.moving_hosts = [name for name, old, new in zip(names, *numbers) if old != new]
    for group, readers in sorted(sides[0].readers.items()):
        then = sides[1].readers.get(group, {})
        change.moving_partitions += [
            (group, number, reader, then[number])
            for number, reader in sorted(readers.items())
            if number in then and then[number] != reader
        ]
    # A pair of partitions has the same readers for all hosts in it.
    pairs = Counter(zip(*numbers))
    change.hosts_with_another_reader = sum(count for pair, count in pairs.items() if _other_readers(change, *pair))
    return change


def _other_readers(change: Change, old: int, new: int) -> bool:
    """Whether a host that was in one partition, and is in another then, gets another archive host in any group."""
    readers = [{group: of.get(number) for group, of in side.readers.items()} for side, number in (
        (change.now, old), (change.then, new),
    )]  # fmt: skip
    return readers[0] != readers[1]


def _changed(inventory: Inventory, hosts: Iterable[str], consumers: Sequence[str], count: int) -> Inventory:
    """The hosts' variables as they would be: all have the new count, and who is new belongs to the first group."""
    new = {GROUPS[1]: group_of(inventory[consumers[0]])} if consumers else {}
    kept = (HOSTNAME, READ_PARTITIONS, *GROUPS)
    changed: dict[str, Mapping[str, Any]] = {}
    for host in hosts:
        variables = inventory.get(host, new)
        changed[host] = {**{name: variables[name] for name in kept if name in variables}, PARTITIONS["fleet"]: count}
    return changed


def _side(
    partitions: int, numbers: Iterable[int], read_partitions: Mapping[str, Sequence[int]], inventory: Inventory
) -> Side:
    side = Side(partitions, [0] * max(partitions, 1))
    for number in numbers:
        side.hosts[number] += 1
    for reader, share in read_partitions.items():
        readers = side.readers.setdefault(group_of(inventory[reader]), {})
        readers.update((number, reader) for number in share)
        side.load[reader] = sum(side.hosts[number] for number in share)
    return side


def percent(part: float, whole: float) -> str:
    """A share of a whole."""
    return "%.1f %%" % (100 * part / whole) if whole else "-"


def summary(change: Change) -> list[tuple[str, str, str]]:
    """What there is to know first: of what, now, then."""

    def row(what: str, tell: Callable[[Side], str]) -> tuple[str, str, str]:
        return what, tell(change.now), tell(change.then)

    return [
        row("partitions", lambda side: str(side.partitions)),
        row("fullest partition", lambda side: _held(side, side.fullest)),
        row("emptiest partition", lambda side: _held(side, side.emptiest)),
        row("an even share", lambda side: percent(1, len(side.hosts))),
        row("archive hosts", lambda side: str(len(side.load))),
    ]


def _held(side: Side, number: int) -> str:
    total = sum(side.hosts)
    return "p%d: %d of %d hosts, %s" % (number, side.hosts[number], total, percent(side.hosts[number], total))


def sentences(change: Change) -> list[str]:
    """What would move, and what that takes."""
    count, moving = change.host_count, len(change.moving_hosts)
    said = [
        "%d of %d hosts move to another partition (%s)%s"
        % (moving, count, percent(moving, count), ": %s" % named(change.moving_hosts) if moving else ""),
        "%d partition%s to another archive host"
        % (len(change.moving_partitions), " moves" if len(change.moving_partitions) == 1 else "s move"),
        "the lines of %d of %d hosts go to another archive host from then on (%s)"
        % (change.hosts_with_another_reader, count, percent(change.hosts_with_another_reader, count)),
    ]
    if change.other_partitions:
        said.append(
            "to change the number of partitions: stop the producers, wait until shipper status shows no lag, change "
            "shipper_partitions for all hosts, and roll out"
        )
    elif change.moving_partitions:
        said.append(
            "to change the archive hosts: roll out; a partition waits until its old owner has released it, and what is "
            "archived stays where it is"
        )
    return said


def as_text(change: Change) -> list[str]:
    """The plan as lines."""
    lines = table(("", "NOW", "THEN"), summary(change)).splitlines()
    lines += ["", *sentences(change), ""]
    rows = []
    for number in range(max(len(change.now.hosts), len(change.then.hosts))):
        cells = [str(number)]
        for side in (change.now, change.then):
            there = number < len(side.hosts)
            readers = [side.readers[group].get(number, "-") for group in sorted(side.readers)]
            cells += [str(side.hosts[number]) if there else "-", ", ".join(readers) if there else "-"]
        rows.append(cells)
    shown = rows[:_ROWS_SHOWN]
    head = ("PARTITION", "HOSTS NOW", "READER NOW", "HOSTS THEN", "READER THEN")
    lines += table(head, shown, right=(0, 1, 3)).splitlines()
    if len(rows) > len(shown):
        lines.append("and %d more partitions: see the page" % (len(rows) - len(shown)))
    return lines
