# SPDX-License-Identifier: GPL-3.0-or-later
"""Which partition a host publishes to, and what may be a host: pure, and the only implementation in the tree.

The filters on the controller and the runtime on the hosts both import this module, so it imports nothing of the
package and runs wherever Ansible or the runtime does.
"""

from __future__ import annotations

import re

# FNV-1a, 32 bit: http://www.isthe.com/chongo/tech/comp/fnv/; Go's hash/fnv, which fshipper uses, and nats-server's
# subject mapping {{partition(N)}} have the same constants.
_OFFSET_BASIS = 0x811C9DC5
_PRIME = 0x01000193
_MASK = 0xFFFFFFFF

HOST_MAX_BYTES = 253
# A server takes lines of 4096 bytes. The longest ask for the last message of a subject: the API's own words, a stream,
# the subject, and an inbox in which the host's name stands again.
PREFIX_MAX_BYTES = 1024
# Each is a stream, of which servers hold some thousands; so many can still be planned in seconds.
PARTITIONS_MAX = 65536
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")
# Nothing that UTF-8 cannot write.
_PREFIX_TOKEN = re.compile(r"[^\s.*>\x00-\x20\x7f\ud800-\udfff]+\Z")


def fnv1a_32(data: bytes) -> int:
    """The 32 bit FNV-1a hash of data."""
    value = _OFFSET_BASIS
    for byte in data:
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def partition(host: str, partitions: int) -> int:
    """The partition of a host in a fleet of so many: 0 <= result < partitions, and 0 when partitions is 0.

    The whole name is hashed, dots included, byte for byte. Raises ValueError when partitions is negative.
    """
    if partitions < 0:
        raise ValueError("the number of partitions cannot be negative: %d" % partitions)
    if partitions == 0:
        return 0
    return fnv1a_32(host.encode("utf-8")) % partitions


def is_host(name: str) -> bool:
    """Whether name can be the host part of a subject: 1 to 253 of ASCII letters, digits, - _ and ., no empty label."""
    return len(name) <= HOST_MAX_BYTES and _HOST.match(name) is not None


def is_subject_prefix(prefix: str) -> bool:
    """Whether prefix can begin our subjects: tokens joined by dots, none empty, no wildcard, white space or control, of
    1024 bytes at most."""
    return all(_PREFIX_TOKEN.match(token) for token in prefix.split(".")) and len(prefix.encode()) <= PREFIX_MAX_BYTES


def partition_subject(prefix: str, number: int) -> str:
    """What a reader of a partition subscribes to: ``shipper.p5.>``."""
    return "%s.p%d.>" % (prefix, number)


def host_subject(prefix: str, number: int, host: str) -> str:
    """What a host publishes to: ``shipper.p5.web1.example.net``."""
    return "%s.p%d.%s" % (prefix, number, host)
