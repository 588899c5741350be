# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as stored, how a block is tried again, and when a producer must not go on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from shipper_runtime.broker import Link
from shipper_runtime.connection import Message
from shipper_runtime.delivery import NotStored, Retry, StreamDelivery, Unanswered, check_positions
from shipper_runtime.errors import ApiError, BrokerError, NoAnswer, NoResponders, PublishRefused, StateError
from shipper_runtime.identity import Record
from shipper_runtime.positions import PositionStore
from shipper_runtime.wire import Span, encode

STREAM, HOST = "logs-p0", "web1"
SUBJECT = "shipper.p0.web1"
OURS, FOREIGN = "1" * 32, "2" * 32
FULL = ApiError(503, 10077, "maximum bytes exceeded")


class Answering:
    """A link on which each subject has its answer: a body, headers with a payload, or an error to raise."""

    def __init__(self, **answers: object) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, timeout: float
    ) -> Message:
        self.asked.append(subject)
        kind = "last" if "DIRECT.GET" in subject else "info" if "STREAM.INFO" in subject else "publish"
        found = self._answers[kind]
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, tuple):
            return Message("", "", found[1], found[0])
        return Message("", "", json.dumps(found).encode())


def delivered(answer: object) -> int:
    link = Answering(publish=answer)
    return asyncio.run(StreamDelivery(STREAM).deliver(cast(Link, link), SUBJECT, b"x", {}))


def test_a_message_is_stored_when_its_stream_names_a_sequence() -> None:
    assert delivered({"stream": STREAM, "seq": 7}) == 7
    assert delivered({"stream": STREAM, "seq": 7, "duplicate": True}) == 7


@pytest.mark.parametrize(
    "answer",
    [
        {"stream": STREAM, "seq": 0, "duplicate": True},
        {"stream": STREAM, "duplicate": True},
        {"error": {"code": 400, "err_code": 10158, "description": "duplicate message id is in process"}},
    ],
)
def test_a_duplicate_of_what_is_not_stored_needs_another_id(answer: object) -> None:
    with pytest.raises(NotStored):
        delivered(answer)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"stream": "other", "seq": 7}, NoAnswer),
        ({"stream": "other", "seq": 0, "duplicate": True}, NoAnswer),
        ({"seq": 7}, NoAnswer),
        ({"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}, ApiError),
        (NoResponders("nobody"), NoResponders),
    ],
)
def test_nothing_else_counts_as_stored_and_the_same_id_goes_again(answer: object, error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        delivered(answer)
    assert not isinstance(refused.value, NotStored)


def test_an_id_is_changed_only_where_the_server_calls_a_message_a_duplicate_that_it_has_not() -> None:
    retry = Retry()
    for error, expected in (
        (NoAnswer("late"), 0),
        (FULL, 0),
        (NotStored("duplicate"), 1),
        (NoResponders("nobody"), 1),
        (NotStored("duplicate"), 2),
    ):
        retry.after(error, 0.0)
        assert retry.fresh_ids == expected


def test_pauses_begin_short_and_grow_to_a_few_seconds() -> None:
    retry = Retry()
    pauses = [retry.after(NoAnswer("late"), float(number)) for number in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert pauses[-1] == 5.0


@pytest.mark.parametrize("error", [FULL, NotStored("duplicate")])
def test_a_stream_that_is_full_for_a_moment_is_not_worth_a_line_but_for_longer_it_is(error: BrokerError) -> None:
    retry = Retry()
    for now, said in ((100.0, False), (101.9, False), (102.0, True), (200.0, True)):
        retry.after(error, now)
        assert bool(retry.said) is said
        assert not said or "the stream is full" in retry.said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoResponders("nobody listens"), "no stream takes it"),
        (ApiError(404, 10059, "stream not found"), "shipper streams"),
        (ApiError(500, 10047, "insufficient storage"), "no room left for the stream: insufficient storage (10047)"),
        (ApiError(500, 10023, "insufficient resources"), "no room left"),
        (NoAnswer("no answer in 10 s"), "no answer in 10 s"),
        (PublishRefused("not permitted"), "not permitted"),
        (ApiError(400, 10060, "expected stream does not match"), "expected stream does not match (10060)"),
    ],
)
def test_everything_else_is_said_at_once_in_words_that_help(error: BrokerError, words: str) -> None:
    retry = Retry()
    retry.after(error, 0.0)
    assert words in retry.said
    assert "\n" not in retry.said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextlib.contextmanager
def positions(folder: Path) -> Iterator[PositionStore]:
    with contextlib.closing(PositionStore(str(folder))) as store:
        yield store


def remember(store: PositionStore, life: str) -> None:
    record = Record(source=b"/var/log/a", where=b"/var/log/a", device=1, inode=2, mtime=3, life=life)
    store.records[record.source] = [record]


def last(life: str | None, sequence: int = 50, lives: int | None = None) -> tuple[dict[str, str], bytes]:
    """The stream's last message of this host, as a direct get gives it."""
    headers = {} if life is None else encode(HOST, Span(b"/var/log/a", life, 0, 2, 0, "0" * 32), lives=lives)
    at = {"Nats-Subject": SUBJECT, "Nats-Sequence": str(sequence), "Nats-Time-Stamp": "2024-01-01T00:00:00Z"}
    return {**headers, **at}, b"x"


def check(store: PositionStore, **answers: Any) -> list[str]:
    link = Answering(**answers)
    asyncio.run(check_positions(cast(Link, link), STREAM, SUBJECT, store))
    return link.asked


def test_a_host_that_the_stream_does_not_know_may_begin(folder: Path) -> None:
    with positions(folder) as store:
        asked = check(store, last=({"Status": "404", "Description": "Message Not Found"}, b""))
        assert asked == ["$JS.API.DIRECT.GET.logs-p0.shipper.p0.web1"]


def test_positions_that_are_lost_are_refused_with_what_to_do(folder: Path) -> None:
    with positions(folder) as store, pytest.raises(StateError) as refused:
        check(store, last=last(FOREIGN))
    text = str(refused.value)
    assert text.startswith("SHIPPER_STATE=%s: holds no positions, but stream logs-p0 has" % folder)
    assert "up to 50" in text
    assert "--fresh" in text
    assert "\n" not in text


def test_positions_that_are_an_old_copy_are_refused(folder: Path) -> None:
    with positions(folder) as store:
        remember(store, OURS)
        store.acknowledge(STREAM, 0, 49)
        store.save()
    with positions(folder) as store, pytest.raises(StateError, match="positions that are older than what was sent"):
        check(store, last=last(FOREIGN))


def test_positions_are_an_old_copy_where_more_lives_had_been_begun_whoevers_the_last_message_is(folder: Path) -> None:
    with positions(folder) as store:
        remember(store, OURS)
        store.records[b"/var/log/a"][0].advance(2, b"x\n", b"x\n")
        store.save()
        assert store.begun == 0
        store.confirmed()
        store.save()
        store.save()
        assert store.begun == 1
    with positions(folder) as store:
        assert store.begun == 1
        check(store, last=last(OURS, lives=1))
        # Not even a sequence helps: the stream may be another one by now.
        store.acknowledge(STREAM, 0, 99)
        with pytest.raises(StateError, match="positions that are older than what was sent"):
            check(store, last=last(OURS, lives=2))


def test_lives_are_counted_on_behind_a_version_that_does_not_count_them(folder: Path) -> None:
    with positions(folder) as store:
        remember(store, OURS)
        store.save()
    path = folder / "positions.json"
    path.write_bytes(path.read_bytes().replace(b'"begun": 0, ', b""))
    with positions(folder) as store:
        assert store.begun is None
        check(store, last=last(OURS, lives=7))
        assert store.begun == 7


def test_what_was_published_elsewhere_is_remembered(folder: Path) -> None:
    offsets = []
    for target, offset in (("a", 5), ("a", 7), ("b", 9), ("b", 9), ("a", 9)):
        with positions(folder) as store:
            store.publish_to(target)
            if not store.records:
                remember(store, OURS)
            (record,) = store.records[b"/var/log/a"]
            offsets.append(record.since)
            record.offset = offset
            store.save()
    assert offsets == [0, 0, 7, 7, 9]


def test_what_is_not_on_disk_is_not_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with positions(folder) as store:
        remember(store, OURS)
        store.records[b"/var/log/a"][0].advance(2, b"x\n", b"x\n")
        store.confirmed()
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", full)
            store.save()
        assert store.begun == 0
        store.save()
        assert store.begun == 1


def test_positions_that_know_the_last_message_or_what_is_behind_it_are_good(folder: Path) -> None:
    with positions(folder) as store:
        remember(store, OURS)
        check(store, last=last(OURS))
        store.acknowledge(STREAM, 0, 50)
        check(store, last=last(FOREIGN))
        store.acknowledge(STREAM, 0, 51)
        check(store, last=last(FOREIGN))


def test_a_life_whose_file_is_gone_is_known_until_the_stream_was_asked(folder: Path) -> None:
    """Killed between the server's storing a block and its acknowledgement, and the file deleted meanwhile: the record
    is given up before the stream is asked, and perhaps a second start comes between."""
    with positions(folder) as store:
        remember(store, OURS)
        store.save()
    with positions(folder) as store:
        del store.records[b"/var/log/a"]
        store.save()
        check(store, last=last(OURS))
    with positions(folder) as store:
        check(store, last=last(OURS))
        store.confirmed()
        store.save()
    with positions(folder) as store, pytest.raises(StateError):
        check(store, last=last(OURS))


def test_what_another_stream_acknowledged_says_nothing_of_this_one(folder: Path) -> None:
    with positions(folder) as store:
        store.acknowledge("logs-p1", 1, 99)
        with pytest.raises(StateError):
            check(store, last=last(FOREIGN))


@pytest.mark.parametrize("headers", [{}, {"Shipper-Life": "x"}])
def test_a_last_message_that_is_not_our_producers_stops_nobody(folder: Path, headers: dict[str, str]) -> None:
    found, payload = last(None)
    with positions(folder) as store:
        check(store, last=({**headers, **found}, payload))


def test_a_stream_without_direct_gets_is_said_and_stops_nobody(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with positions(folder) as store:
        check(store, last=NoResponders("nobody"), info={"config": {"allow_direct": False}, "state": {}})
    assert caplog.messages == ["Cannot compare the positions with stream logs-p0: it does not allow direct gets"]


def test_a_stream_that_does_not_answer_at_present_is_waited_for(folder: Path) -> None:
    with positions(folder) as store:
        with pytest.raises(NoResponders):
            check(store, last=NoResponders("nobody"), info={"config": {"allow_direct": True}, "state": {}})
        with pytest.raises(NoAnswer):
            check(store, last=NoAnswer("late"))
        with pytest.raises(ApiError):
            check(store, last=({"Status": "408", "Description": "Bad Request"}, b""))


def test_why_nobody_answers_is_asked_once_where_it_is_refused(folder: Path) -> None:
    with positions(folder) as store:
        with pytest.raises(Unanswered, match="shipper streams"):
            check(store, last=NoResponders("nobody"), info=PublishRefused("not permitted"))
        link = Answering(last=NoResponders("nobody"))
        with pytest.raises(Unanswered):
            asyncio.run(check_positions(cast(Link, link), STREAM, SUBJECT, store, may_ask_why=False))
        assert link.asked == ["$JS.API.DIRECT.GET.logs-p0.shipper.p0.web1"]
