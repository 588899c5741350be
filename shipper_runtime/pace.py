# SPDX-License-Identifier: GPL-3.0-or-later
"""At most so many bytes a second, for a fleet that comes back with a backlog, and for links that others use. Pure."""

from __future__ import annotations

# A piece takes so much of a second at least, or a fast link would be used in bursts.
_SHARE = 8
_PIECE_LEAST = 4096


class Pace:
    """rate in bytes a second, or None for no limit.

    Over any span of time no more is spent than the rate allows, but for one piece; what was not used is not saved up.
    """

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    def piece(self, most: int) -> int:
        """How many bytes to take at a time, at most so many."""
        return most if self._rate is None else min(most, max(_PIECE_LEAST, self._rate // _SHARE))

    def wait(self, now: float) -> float:
        """Seconds until something may be spent; now as time.monotonic() tells."""
        return max(0.0, self._free_at - now)

    def spend(self, size: int, now: float) -> None:
        """So many bytes are on their way."""
        if self._rate is not None:
            self._free_at = max(self._free_at, now) + size / self._rate
