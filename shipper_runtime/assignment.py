# SPDX-License-Identifier: GPL-3.0-or-later
"""Which consumer reads which partitions. Pure; used on the controller only.

Nothing is known of what was before, and yet who joins or leaves must change little for the others. Archive hosts mostly
are numbered: a4 has the partitions that a fourth host takes from three others. What that leaves over, because a number
is missing or a name has none, goes to hosts that rank it high, and a host's ranks depend on its own name alone. The way
is that of stable matching, with room for an even share on every host.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from heapq import heappush, heapreplace

from .partition import PARTITIONS_MAX

# A name's first label, its last number in the midst.
_NUMBER = re.compile(r"([^.]*?)([0-9]{1,9})([^.0-9]*(?:\..*)?)\Z", re.DOTALL)
# Of those who have no number there may be so few that what they change stays small.
_MOST = 0.75


class AssignmentError(ValueError):
    """Hosts, partitions and pins that cannot be brought together: one line with the remedy."""


def assign(
    hosts: Iterable[str], partitions: int, pins: Mapping[str, Sequence[int]] | None = None
) -> dict[str, list[int]]:
    """The partitions that each host reads, in order: each partition has one reader.

    A function of the set of hosts: their order does not count. Loads are within one of each other, as far as pins
    permit: what is pinned to a host is its own and counts as load, and the rest evens out what the pins leave uneven.
    No partitions at all means one, partition 0. Raises AssignmentError.
    """
    names = sorted(set(hosts))
    count = max(partitions, 1)
    if count > PARTITIONS_MAX:
        raise AssignmentError("%d partitions are more than %d: use fewer" % (partitions, PARTITIONS_MAX))
    if not names:
        raise AssignmentError("there is no consumer to read %s: add one" % partition_range(count))
    owners = _pinned(names, count, pins or {})
    shares: dict[str, list[int]] = {host: [] for host in names}
    for number, host in owners.items():
        shares[host].append(number)
    distribute([number for number in range(count) if number not in owners], shares, count)
    return shares


def distribute(numbers: Sequence[int], shares: dict[str, list[int]], count: int) -> None:
    """Adds these partitions, of count, to what the hosts have already, so that loads become even, and sorts it."""
    loads = {host: len(share) for host, share in shares.items()}
    even, extra = _level(sorted(loads.values()), sum(loads.values()) + len(numbers))
    free = set(numbers)

    def wishes() -> Iterator[tuple[str, int]]:
        yield from _numbered(shares, count)
        # Of what is left by then.
        yield from _ranked(shares, sorted(free))

    for host, number in wishes():
        if number in free and (loads[host] < even or (loads[host] == even and extra)):
            extra -= loads[host] == even
            loads[host] += 1
            free.discard(number)
            shares[host].append(number)
    for share in shares.values():
        share.sort()


def partition_range(count: int) -> str:
    return "partition 0" if count == 1 else "partitions 0 to %d" % (count - 1)


def _pinned(names: Sequence[str], count: int, pins: Mapping[str, Sequence[int]]) -> dict[int, str]:
    owners: dict[int, str] = {}
    for host, numbers in sorted(pins.items()):
        if host not in names:
            raise AssignmentError("pins name %s, which is not among the consumers: add it there, or unpin it" % host)
        for number in numbers:
            if not 0 <= number < count:
                raise AssignmentError(
                    "partition %d is pinned to %s, but the fleet has %s" % (number, host, partition_range(count))
                )
            if owners.setdefault(number, host) != host:
                raise AssignmentError(
                    "partition %d is pinned to %s and to %s: leave it to one" % (number, owners[number], host)
                )
    return owners


def _level(loads: Sequence[int], count: int) -> tuple[int, int]:
    """How high the partitions fill the hosts up, like water: to even, and extra hosts to one more. loads ascends."""
    reached = len(loads)
    left = count
    # Hosts whose pins stand above the water do not take part.
    while reached > 1 and loads[reached - 1] > left // reached:
        reached -= 1
        left -= loads[reached]
    return divmod(left, reached)


def _numbered(hosts: Iterable[str], count: int) -> list[tuple[str, int]]:
    """What hosts have by their own number, where most are called alike but for it."""
    names = sorted(hosts)
    alike: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for host in names:
        found = _NUMBER.match(host)
        if found:
            before, number, behind = found.groups()
            alike[before, behind].setdefault(int(number) - 1, host)
    places = max(alike.values(), key=len, default={})
    # As far as half of the numbers are there: a1 and a900 are two hosts, not 900.
    present = sorted(places)
    last = max((index for rank, index in enumerate(present, 1) if index < 2 * rank), default=-1)
    within = [index for index in present if index <= last]
    if len(within) < _MOST * len(names):
        return []
    layout = _joined(count, max(last + 1, len(names)))
    return [(places[index], number) for index in within if index >= 0 for number in layout[index]]


def _joined(count: int, hosts: int) -> list[list[int]]:
    """Partitions of hosts that joined one by one: each took its share from those that had most, and no more moved."""
    shares = [list(range(count))]
    fullest = [(-count, 0)]
    for host in range(1, hosts):
        taken: list[int] = []
        for _turn in range(count // (host + 1)):
            load, donor = fullest[0]
            taken.append(shares[donor].pop())
            heapreplace(fullest, (load + 1, donor))
        shares.append(taken)
        heappush(fullest, (-len(taken), host))
    return shares


def _ranked(hosts: Iterable[str], free: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Hosts and partitions, those that rank each other highest first."""
    # Ranks, not hashes, are compared between hosts: every host has one first wish, one second, and so on, which halves
    # the variance of what must be moved for the sake of even loads. The hash's second half decides between equals.
    wishes = []
    for host in hosts:
        hashed = [(blake2b(b"%d %s" % (number, host.encode()), digest_size=16).digest(), number) for number in free]
        wishes += [(rank, digest[8:], host, number) for rank, (digest, number) in enumerate(sorted(hashed))]
    return ((host, number) for _rank, _digest, host, number in sorted(wishes))
