# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong is said, and never fills the log."""

from __future__ import annotations

import pytest

from shipper_runtime import tally
from shipper_runtime.tally import Tally


def test_what_is_counted_is_said_at_once_and_then_summed_up_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    it = Tally()
    it.count(tally.DROPPED, "4")
    it.report(0.0)
    for second in range(1, 10):
        it.count(tally.DROPPED, "4", 2)
        it.report(float(second))
    assert caplog.messages == ["Dropped 1 messages of partition 4: the archive is slower than the senders"]
    it.report(10.0)
    it.report(30.0)
    assert caplog.messages[1:] == ["Dropped 18 messages of partition 4: the archive is slower than the senders"]
    assert it.totals[tally.DROPPED] == 19


def test_the_worst_are_named_and_the_others_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    it = Tally()
    for number in range(100):
        it.count(tally.MISSING, "web%d" % number, number)
    it.report(0.0)
    assert len(caplog.messages) == 21
    assert caplog.messages[0] == "Missing 99 bytes of host web99: they were published and never came"
    assert caplog.messages[-1].startswith("Missing %d bytes of host 80 others:" % sum(range(80)))


def test_what_was_repeated_is_no_loss_and_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    it = Tally()
    it.count(tally.REPEATED, "web1", 5)
    it.report(0.0)
    assert caplog.messages == []
    assert it.totals[tally.REPEATED] == 5


def test_an_offender_is_named_once_on_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    it = Tally()
    for _turn in range(3):
        it.complain("Rejecting messages on %s: %s", "a\n\x1b[31m\udcff" + "x" * 300, "bad host")
    (line,) = caplog.messages
    assert line.startswith("Rejecting messages on a\\n\\x1b[31m\\udcffxxx")
    assert line.endswith("xxx...: bad host")
    assert len(line) < 250


def test_many_offenders_and_many_hosts_cost_bounded_memory_and_lines(caplog: pytest.LogCaptureFixture) -> None:
    it = Tally()
    for number in range(20000):
        it.complain("Rejecting messages on %s: %s", "offender%d" % number, "bad host")
        it.count(tally.MISSING, "host%d" % number)
    assert len(caplog.messages) == 1001
    assert caplog.messages[-1] == "More than 1000 offenders: the others are counted and not named"
    it.report(0.0)
    assert it.totals[tally.MISSING] == 20000
    assert caplog.messages[1001] == "Missing 10000 bytes of host others: they were published and never came"
    assert len(caplog.messages) == 1001 + 21
