# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a broker must be allowed to store. Pure; used on the controller only."""

from __future__ import annotations

from .settings import parse_size

# A full stream takes a little more on the disk than its limit, and shares are not quite even.
_MORE = 1.25
_LEAST = 64 * 1024 * 1024


def file_store(given: str, partitions: int, max_bytes: str, replicas: int, brokers: int) -> int:
    """Bytes for broker_max_file_store: what was given, or else each broker's share of all streams at their limits, with
    room. Raises SettingError."""
    if given:
        return parse_size("broker_max_file_store", given)
    copies = max(partitions, 1) * replicas
    share = -(-copies // brokers) * parse_size("shipper_stream_max_bytes", max_bytes)
    return int(share * _MORE) + _LEAST
