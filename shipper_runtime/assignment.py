# SPDX-License-Identifier: GPL-3.0-or-later
"""Which consumer reads which partitions. Pure; used on the controller only.

Every partition goes to a host that ranks it high, and a host's ranks depend on its own name alone: who joins or leaves
changes little for the others. The way is that of stable matching, with room for an even share on every host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

# What can be planned in seconds, and what a consumer may name in SHIPPER_READ_PARTITIONS.
PARTITIONS_MAX = 65536


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
    distribute([number for number in range(count) if number not in owners], shares)
    return shares


def distribute(numbers: Sequence[int], shares: dict[str, list[int]]) -> None:
    """Adds these partitions to what the hosts have already, so that loads become even, and sorts it."""
    loads = {host: len(share) for host, share in shares.items()}
    even, extra = _level(sorted(loads.values()), sum(loads.values()) + len(numbers))
    given: set[int] = set()
    for wish in sorted(chain.from_iterable(_wishes(name, numbers) for name in shares)):
        host, number = wish[2:]
        if number in given or loads[host] > even or (loads[host] == even and not extra):
            continue
        extra -= loads[host] == even
        loads[host] += 1
        given.add(number)
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


def _wishes(host: str, free: Sequence[int]) -> list[tuple[int, bytes, str, int]]:
    # Ranks, not hashes, are compared between hosts: every host has one first wish, one second, and so on, which halves
    # the variance of what must be moved for the sake of even loads. The hash's second half decides between equals.
    order = sorted((blake2b(b"%d %s" % (number, host.encode()), digest_size=16).digest(), number) for number in free)
    return [(rank, digest[8:], host, number) for rank, (digest, number) in enumerate(order)]
