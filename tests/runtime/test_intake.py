# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written for a message: each byte of a source once, in order, lines whole where sources share a file."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime import intake
from shipper_runtime.errors import WireError
from shipper_runtime.intake import Intake, Known, SteadyTime, Taken
from shipper_runtime.packing import Packed, pack
from shipper_runtime.wire import FINISHED, MORE, Span

LIFE = "0" * 32


def span(begin: int, end: int, partial: str | None = None, life: str = LIFE) -> Span:
    return Span(b"/var/log/a", life, begin, end, 0, "0" * 32, partial)


def message(content: bytes, begin: int, end: int, life: str = LIFE) -> tuple[Span, bytes]:
    """The message that carries these bytes of a finished file."""
    data = content[begin:end]
    if data.endswith(b"\n"):
        return span(begin, end, None, life), data[:-1]
    return span(begin, end, FINISHED if end == len(content) else MORE, life), data


def test_a_message_that_comes_again_is_not_written_again() -> None:
    plan = Intake(whole_lines=False)
    assert plan.take("h", span(0, 4), b"abc") == Taken(b"abc\n")
    assert plan.take("h", span(0, 4), b"abc") == Taken(b"", repeated=4)
    assert plan.take("h", span(4, 6), b"d") == Taken(b"d\n")


def test_of_a_message_that_overlaps_only_what_is_new_is_written() -> None:
    plan = Intake(whole_lines=False)
    plan.take("h", span(0, 4), b"abc")
    assert plan.take("h", span(2, 8), b"c\ndef") == Taken(b"def\n", repeated=2)
    assert plan.take("h", span(7, 9, MORE), b"\nx") == Taken(b"x", repeated=1)


def test_a_hole_is_counted_at_once_and_stops_nothing() -> None:
    plan = Intake(whole_lines=False)
    plan.take("h", span(0, 4), b"abc")
    assert plan.take("h", span(10, 12), b"z") == Taken(b"z\n", missing=6)
    assert plan.take("h", span(12, 14), b"y") == Taken(b"y\n")


@pytest.mark.parametrize(("since", "missing"), [(0, 6), (4, 6), (7, 3), (10, 0)])
def test_what_went_elsewhere_is_not_missing(since: int, missing: int) -> None:
    plan = Intake(whole_lines=True)
    plan.take("h", span(0, 4, MORE), b"abcd")
    moved = span(10, 12)._replace(since=since)
    # The line's other half is not here, and never will be.
    assert plan.take("h", moved, b"z") == Taken(b"abcd\nz\n", missing=missing)


def test_an_unknown_life_is_taken_where_it_begins() -> None:
    plan = Intake(whole_lines=False)
    assert plan.take("h", span(500, 502), b"z") == Taken(b"z\n")
    assert plan.take("h", span(0, 2, life="1" * 32), b"a") == Taken(b"a\n")
    assert plan.take("other", span(0, 2), b"a") == Taken(b"a\n")


def test_with_a_source_of_its_own_a_file_gets_the_sources_bytes_as_they_are() -> None:
    plan = Intake(whole_lines=False)
    assert plan.take("h", span(0, 3, MORE), b"abc") == Taken(b"abc")
    assert plan.take("h", span(3, 6), b"de") == Taken(b"de\n")
    assert plan.take("h", span(6, 8, FINISHED), b"fg") == Taken(b"fg")


def test_in_a_shared_file_a_line_is_written_when_it_is_whole() -> None:
    plan = Intake(whole_lines=True)
    assert plan.take("h", span(0, 3, MORE), b"abc") == Taken(b"")
    assert plan.take("h", span(0, 2, life="1" * 32), b"x") == Taken(b"x\n")
    assert plan.take("h", span(3, 6, MORE), b"def") == Taken(b"")
    assert plan.take("h", span(6, 10), b"g\nh") == Taken(b"abcdefg\nh\n")


def test_in_a_shared_file_a_finished_files_last_line_is_completed() -> None:
    plan = Intake(whole_lines=True)
    assert plan.take("h", span(0, 3, MORE), b"abc") == Taken(b"")
    assert plan.take("h", span(3, 4, FINISHED), b"d") == Taken(b"abcd\n")
    assert plan.take("h", span(4, 8, FINISHED), b"e\nfg") == Taken(b"e\nfg\n")
    assert plan.take("h", span(8, 9, FINISHED), b"\n") == Taken(b"\n")


def test_a_hole_in_a_line_that_is_kept_aside_ends_that_line() -> None:
    plan = Intake(whole_lines=True)
    plan.take("h", span(0, 3, MORE), b"abc")
    assert plan.take("h", span(9, 12), b"yz") == Taken(b"abc\nyz\n", missing=6)


def test_a_line_beyond_the_limit_is_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ASIDE_MOST", 5)
    plan = Intake(whole_lines=True)
    assert plan.take("h", span(0, 4, MORE), b"abcd") == Taken(b"")
    assert plan.take("h", span(4, 8, MORE), b"efgh") == Taken(b"abcdefgh\n", cut=True)
    assert plan.take("h", span(8, 10), b"i") == Taken(b"i\n")


def test_what_is_kept_aside_is_handed_out_at_the_end() -> None:
    plan = Intake(whole_lines=True)
    plan.take("h", span(0, 3, MORE), b"abc")
    plan.take("h", span(0, 1, MORE, life="1" * 32), b"x")
    plan.take("other", span(0, 2), b"y")
    assert plan.leave() == [("h", b"abc\nx\n")]
    assert plan.leave() == []


def test_lives_are_bounded_for_each_host_and_nothing_kept_aside_is_lost() -> None:
    plan = Intake(whole_lines=True, lives=2)
    plan.take("h", span(0, 3, MORE, life="1" * 32), b"abc")
    plan.take("h", span(0, 2, life="2" * 32), b"d")
    assert plan.take("h", span(0, 2, life="3" * 32), b"e") == Taken(b"abc\ne\n")
    assert plan.take("h", span(0, 2, life="2" * 32), b"d").repeated == 2


def test_hosts_are_bounded_and_one_with_a_line_aside_is_not_forgotten() -> None:
    plan = Intake(whole_lines=True, hosts=2)
    plan.take("a", span(0, 3, MORE), b"abc")
    for host in "bcd":
        plan.take(host, span(0, 2), b"x")
    assert plan.take("a", span(3, 5), b"d") == Taken(b"abcd\n")
    assert plan.take("b", span(0, 2), b"x") == Taken(b"x\n")


def test_time_does_not_run_backwards_unless_by_more_than_an_hour() -> None:
    clock = SteadyTime()
    seconds = [clock.at(stamp * 10**9) // 10**9 for stamp in (7200, 7000, 7201, 3602, 3600, 3601)]
    assert seconds == [7200, 7200, 7201, 7201, 3600, 3601]


ONE, TWO = "1" * 32, "2" * 32


class Memory:
    """What is remembered elsewhere of hosts' lives; asked keeps the hosts that were asked for."""

    def __init__(self, **hosts: list[Known]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    def recall(self, host: str) -> list[Known]:
        self.asked.append(host)
        return self.hosts.get(host, [])

    def commit(self, plan: Intake) -> None:
        """As the ledger does it: what was used last stands last."""
        kept, gone = plan.changes()
        for host, known in kept:
            self.hosts[host] = [each for each in self.hosts.get(host, []) if each.life != known.life] + [known]
        for host, life in gone:
            self.hosts[host] = [each for each in self.hosts.get(host, []) if each.life != life]
        plan.settle()


def test_what_is_remembered_of_a_host_is_asked_for_once_and_goes_on_where_it_was_left() -> None:
    memory = Memory(h=[Known(LIFE, 4, b""), Known(ONE, 10, b"abc")])
    plan = Intake(whole_lines=True, recall=memory.recall)
    assert plan.take("h", span(0, 4), b"xyz").repeated == 4
    assert plan.take("h", span(2, 6), b"z\na") == Taken(b"a\n", repeated=2)
    assert plan.take("h", span(10, 12, life=ONE), b"d") == Taken(b"abcd\n")
    assert plan.take("h", span(20, 22, life=TWO), b"e") == Taken(b"e\n")
    assert memory.asked == ["h"]


def test_what_changed_is_told_until_it_is_remembered_and_what_did_not_is_not() -> None:
    plan = Intake(whole_lines=True, recall=Memory(h=[Known(LIFE, 4, b"")]).recall)
    assert plan.changes() == ([], [])
    plan.take("h", span(0, 4), b"xyz")
    assert plan.changes() == ([], [])
    plan.take("h", span(4, 6), b"a")
    plan.take("h", span(0, 3, MORE, life=ONE), b"abc")
    plan.take("h", span(6, 8), b"b")
    expected = [("h", Known(LIFE, 8, b"")), ("h", Known(ONE, 3, b"abc"))]
    assert plan.changes() == (expected, [])
    assert plan.changes() == (expected, [])
    plan.settle()
    assert plan.changes() == ([], [])
    plan.take("h", span(3, 5, life=ONE), b"d")
    assert plan.changes() == ([("h", Known(ONE, 5, b""))], [])


def test_a_life_that_had_to_go_is_told_as_forgotten_and_nothing_kept_aside_is_lost() -> None:
    memory = Memory(h=[Known(ONE, 3, b"abc"), Known(TWO, 5, b"")])
    plan = Intake(whole_lines=True, lives=2, recall=memory.recall)
    assert plan.take("h", span(0, 2), b"x") == Taken(b"abc\nx\n")
    assert plan.changes() == ([("h", Known(LIFE, 2, b""))], [("h", ONE)])
    memory.commit(plan)
    assert memory.hosts == {"h": [Known(TWO, 5, b""), Known(LIFE, 2, b"")]}


def test_a_life_that_went_and_came_back_before_it_was_remembered_is_told_as_it_is() -> None:
    memory = Memory(h=[Known(ONE, 3, b"")])
    plan = Intake(whole_lines=False, lives=1, recall=memory.recall)
    plan.take("h", span(0, 2), b"x")
    plan.take("h", span(3, 5, life=ONE), b"y")
    memory.commit(plan)
    assert memory.hosts == {"h": [Known(ONE, 5, b"")]}


def test_hosts_with_changes_that_are_not_remembered_stay_however_many_they_are() -> None:
    memory = Memory()
    plan = Intake(whole_lines=True, hosts=1, recall=memory.recall)
    for host in "abc":
        plan.take(host, span(0, 3, MORE), b"abc")
    for host in "abc":
        assert plan.take(host, span(0, 3, MORE), b"abc").repeated == 3
    assert memory.asked == ["a", "b", "c"]
    memory.commit(plan)
    for host in "abc":
        assert plan.take(host, span(3, 5), b"d") == Taken(b"abcd\n")


def test_without_a_memory_nothing_is_told() -> None:
    plan = Intake(whole_lines=False)
    plan.take("h", span(0, 2), b"x")
    assert plan.changes() == ([], [])


contents = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\0", b"\r\n", b"\xff"]), min_size=1, max_size=40).map(
    b"".join
)


Delivery = tuple[bytes, list[tuple[int, int]]]


def sent(content: bytes, steps: list[tuple[int, int]]) -> Delivery:
    """A file and spans of it as a producer sends them that falls back to an older position now and then."""
    spans, position = [], 0
    for back, length in steps:
        begin = max(0, position - back)
        position = min(len(content), begin + length)
        spans.append((begin, position))
        if position == len(content):
            return content, spans
    return content, [*spans, (position, len(content))]


steps = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 7]), st.integers(1, 9)), max_size=12)
deliveries = st.builds(sent, contents, steps)


@given(deliveries, st.booleans())
def test_whatever_is_sent_again_each_byte_is_written_once_and_in_order(delivery: Delivery, whole_lines: bool) -> None:
    content, spans = delivery
    plan = Intake(whole_lines=whole_lines)
    taken = [plan.take("h", *message(content, begin, end)) for begin, end in spans]
    written = b"".join(one.data for one in taken) + b"".join(data for _nothing, data in plan.leave())
    completed = content if content.endswith(b"\n") or not whole_lines else content + b"\n"
    assert written == completed
    assert sum(one.repeated for one in taken) == sum(end - begin for begin, end in spans) - len(content)
    assert not any(one.missing for one in taken)


@given(
    st.lists(deliveries, min_size=1, max_size=3), st.booleans(), st.integers(1, 3), st.randoms(use_true_random=False)
)
def test_what_comes_packed_is_taken_as_what_it_holds(
    delivered: list[Delivery], whole_lines: bool, lives: int, chance: Random
) -> None:
    """And stays packed where nothing of it is cut or joined."""
    plain = Intake(whole_lines=whole_lines, lives=lives)
    unpacking, packing = (Intake(whole_lines=whole_lines, lives=lives, packed=packed) for packed in (False, True))
    coming = [(content, number, list(spans)) for number, (content, spans) in enumerate(delivered)]
    while coming:
        content, number, spans = chance.choice(coming)
        begin, end = spans.pop(0)
        coming = [each for each in coming if each[2]]
        one, payload = message(content, begin, end, "%032x" % number)
        expected = plain.take("h", one, payload)
        block = Packed(pack(1, content[begin:end]), end - begin)
        assert unpacking.take("h", one._replace(packed=True), block) == expected
        taken = packing.take("h", one._replace(packed=True), block)
        touched = taken.repeated or taken.data in (b"", b"\n") or one.partial or whole_lines
        assert isinstance(taken.data, Packed) or touched
        held = taken.data.plain() if isinstance(taken.data, Packed) else taken.data
        assert taken._replace(data=held) == expected
    assert packing.leave() == plain.leave()


def test_what_cannot_be_unpacked_is_as_if_it_had_not_come() -> None:
    damaged = bytearray(pack(1, b"abc\ndef\n"))
    damaged[-8] ^= 1
    plan = Intake(whole_lines=True, lives=1, packed=True)
    plan.take("h", span(0, 3, MORE, "1" * 32), b"xyz")
    for one in (span(0, 8), span(0, 8, MORE), span(1, 9, None, "1" * 32)):
        with pytest.raises(WireError):
            plan.take("h", one._replace(packed=True), Packed(damaged, 8))
    assert plan.take("h", span(3, 5, None, "1" * 32), b"!") == Taken(b"xyz!\n")


@given(deliveries, st.booleans(), st.lists(st.sampled_from(["commit", "crash", "another host", ""]), max_size=14))
def test_from_what_is_remembered_each_byte_is_written_once_whenever_it_is_begun_again(
    delivery: Delivery, whole_lines: bool, events: list[str]
) -> None:
    content, spans = delivery
    memory = Memory()
    plan = Intake(whole_lines=whole_lines, hosts=1, recall=memory.recall)
    committed, written, position, at = b"", b"", 0, 0
    while position < len(spans):
        written += plan.take("h", *message(content, *spans[position])).data
        position += 1
        event = events.pop(0) if events else ""
        if event == "another host":
            plan.take("other", span(0, 2), b"x")
        elif event == "commit":
            memory.commit(plan)
            committed, at = written, position
        elif event == "crash":
            plan = Intake(whole_lines=whole_lines, hosts=1, recall=memory.recall)
            written, position = committed, at
    written += b"".join(data for host, data in plan.leave() if host == "h")
    assert written == (content if content.endswith(b"\n") or not whole_lines else content + b"\n")


@given(st.lists(deliveries, min_size=2, max_size=3), st.randoms(use_true_random=False))
def test_in_a_shared_file_every_line_is_whole_however_the_sources_interleave(
    files: list[Delivery], random: Random
) -> None:
    plan = Intake(whole_lines=True)
    queues = [
        [message(content, begin, end, "%032x" % number) for begin, end in spans]
        for number, (content, spans) in enumerate(files)
    ]
    lines: list[list[bytes]] = [[] for _file in files]
    while any(queues):
        number = random.choice([number for number, queue in enumerate(queues) if queue])
        data = plan.take("h", *queues[number].pop(0)).data
        assert data == b"" or data.endswith(b"\n")
        lines[number].append(data)
    for (content, _nothing), written in zip(files, lines):
        assert b"".join(written) == (content if content.endswith(b"\n") else content + b"\n")


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 20)), min_size=1, max_size=30), st.booleans())
def test_whatever_spans_come_bytes_are_counted_as_new_repeated_or_missing(
    pairs: list[tuple[int, int]], whole_lines: bool
) -> None:
    plan = Intake(whole_lines=whole_lines)
    after = None
    for begin, length in pairs:
        taken = plan.take("h", span(begin, begin + length), b"x" * (length - 1))
        known = begin if after is None else after
        assert taken.missing == max(0, begin - known)
        assert taken.repeated == max(0, min(known, begin + length) - begin)
        assert len(taken.data) == length - taken.repeated
        after = max(known, begin + length)
