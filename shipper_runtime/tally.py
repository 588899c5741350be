# SPDX-License-Identifier: GPL-3.0-or-later
"""What did not go as it should: counted, and said without filling the log, whatever others send."""

from __future__ import annotations

import logging
from collections import Counter

from .errors import printable

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 10.0
_NAMED_MOST = 20
_OFFENDERS_MOST = 1000
_OFFENDER_SHOWN = 200
_PENDING_MOST = 10000
_OTHERS = "others"

# The kinds, as they are said in a sum.
DROPPED = "messages dropped"
REJECTED = "messages rejected"
MISSING = "bytes missing"
UNWRITTEN = "bytes unwritten"
REPEATED = "bytes repeated"
CUT = "lines cut"

# What is said of each: how many, and whom it concerns. What was repeated is no loss, and not said.
_SENTENCES = {
    DROPPED: "Dropped %d messages of partition %s: the archive is slower than the senders",
    MISSING: "Missing %d bytes of host %s: they were published and never came",
    REJECTED: "Rejected %d messages: %s",
    UNWRITTEN: "Lost %d bytes of host %s: they could not be written",
    CUT: "Wrote %d lines of host %s in two: they are too long for a file that sources share",
}


class Tally:
    """Counts by kind and by whom it concerns; totals holds the sums of each kind since the start.

    A report is made when something new is there, at most every ten seconds; an offender is named once.
    """

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._pending: Counter[tuple[str, str]] = Counter()
        self._reported_at = float("-inf")
        self._offenders: dict[str, set[str]] = {}

    def count(self, kind: str, whom: str, amount: int = 1) -> None:
        """One more of a kind, or amount more."""
        self.totals[kind] += amount
        if kind in _SENTENCES:
            key = (kind, whom)
            if key not in self._pending and len(self._pending) >= _PENDING_MOST:
                key = (kind, _OTHERS)
            self._pending[key] += amount

    def complain(self, sentence: str, offender: str, reason: str) -> None:
        """Say who did what, once for each offender; beyond a thousand with one sentence they are only counted."""
        offenders = self._offenders.setdefault(sentence, set())
        if offender in offenders or len(offenders) > _OFFENDERS_MOST:
            return
        offenders.add(offender)
        if len(offenders) > _OFFENDERS_MOST:
            logger.warning("More than %d offenders: the others are counted and not named", _OFFENDERS_MOST)
            return
        shown = printable(offender)
        logger.warning(sentence, shown if len(shown) <= _OFFENDER_SHOWN else shown[:_OFFENDER_SHOWN] + "...", reason)

    def report(self, now: float) -> None:
        """Say what was counted since the last report, if that is long enough ago."""
        if not self._pending or now - self._reported_at < REPORT_INTERVAL:
            return
        self._reported_at = now
        for kind, sentence in _SENTENCES.items():
            of_kind = Counter({whom: amount for (what, whom), amount in self._pending.items() if what == kind})
            for whom, amount in of_kind.most_common(_NAMED_MOST):
                logger.warning(sentence, amount, whom)
            if len(of_kind) > _NAMED_MOST:
                rest = sum(of_kind.values()) - sum(amount for _nothing, amount in of_kind.most_common(_NAMED_MOST))
                logger.warning(sentence, rest, "%d %s" % (len(of_kind) - _NAMED_MOST, _OTHERS))
        self._pending.clear()
