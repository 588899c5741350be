# SPDX-License-Identifier: GPL-3.0-or-later
"""What JetStream's answers say."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.broker import Link
from shipper_runtime.connection import Message
from shipper_runtime.errors import ApiError, NoAnswer
from shipper_runtime.jetstream import Ack, JetStream, Place, _body, nanoseconds, place

NUMBERS = "1.42.7.1700000000123456789.5"
AT = Place("logs-p0", "archive", sequence=42, delivery=7, times=1, stamp=1700000000123456789, pending=5)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.logs-p0.archive." + NUMBERS,
        "$JS.ACK.hub.ACCHASH.logs-p0.archive." + NUMBERS,
        "$JS.ACK._.ACCHASH.logs-p0.archive.%s.random" % NUMBERS,
        "$JS.ACK.hub.ACCHASH.logs-p0.archive.%s.random.and.what.comes" % NUMBERS,
    ],
    ids=["9 tokens", "11 tokens", "12 tokens", "more"],
)
def test_a_reply_says_where_a_message_stands(reply: str) -> None:
    assert place(reply) == AT


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX.abc",
        "$JS.ACK",
        "$JS.ACK.logs-p0.archive.1.42.7.5",
        "$JS.ACK.hub.logs-p0.archive." + NUMBERS,
        "$JS.NAK.logs-p0.archive." + NUMBERS,
        "$JS.ACK.logs-p0.archive.1.x.7.8.5",
        "$JS.ACK.logs-p0.archive.1..7.8.5",
        "$JS.ACK.hub.ACCHASH.logs-p0.archive.1.42.7.x.5",
        "x$JS.ACK.logs-p0.archive." + NUMBERS,
    ],
)
def test_a_reply_that_is_not_jetstreams_says_nothing(reply: str) -> None:
    assert place(reply) is None


@given(st.text(alphabet="$JSACK.01x-", max_size=60))
def test_whatever_a_reply_is_it_is_understood_or_not(reply: str) -> None:
    for text in (reply, "$JS.ACK." + reply):
        assert place(text) is None or isinstance(place(text), Place)


@pytest.mark.parametrize("decimals", range(10))
def test_a_time_is_exact_with_any_number_of_decimals(decimals: int) -> None:
    digits = "123456789"[:decimals]
    stamp = "2023-11-14T22:13:20%sZ" % ("." + digits if digits else "")
    assert nanoseconds(stamp) == 1_700_000_000 * 10**9 + int(digits.ljust(9, "0"))


@pytest.mark.parametrize(
    "stamp",
    [
        "2023-11-14T22:13:20.5Z",
        "2023-11-14T22:13:20.5+00:00",
        "2023-11-15T03:43:20.5+05:30",
        "2023-11-14T14:13:20.5-08:00",
    ],
)
def test_a_time_is_the_same_in_any_zone(stamp: str) -> None:
    assert nanoseconds(stamp) == 1_700_000_000 * 10**9 + 500_000_000


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_every_time_is_what_it_is(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    since = aware - datetime(1970, 1, 1, tzinfo=timezone.utc)
    text = moment.strftime("%H:%M:%S.%f") + "%s%02d:%02d" % ("-" if minutes < 0 else "+", *divmod(abs(minutes), 60))
    expected = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    assert nanoseconds("%04d-%02d-%02dT%s" % (moment.year, moment.month, moment.day, text)) == expected


def test_the_servers_zero_time_is_a_time() -> None:
    assert nanoseconds("0001-01-01T00:00:00Z") < 0


@pytest.mark.parametrize(
    "stamp",
    [
        "",
        "now",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "2023-11-14 22:13:20Z",
        "2023-11-14T22:13:20.Z",
        "2023-11-14T22:13:20.1234567890Z",
        "2023-11-14T22:13:20Z\n",
        "2023-13-14T22:13:20Z",
        "2023-11-31T22:13:20Z",
        "2023-11-14T25:13:20Z",
        "0000-11-14T22:13:20Z",
        "2023-11-14T22:13:20+99:99",
    ],
)
def test_what_is_no_time_is_no_answer(stamp: str) -> None:
    with pytest.raises(NoAnswer, match="a time that is none") as refused:
        nanoseconds(stamp)
    assert "\n" not in str(refused.value)


def answer(data: bytes) -> Message:
    return Message("", "", data)


def test_an_answer_that_is_nested_too_deep_is_none() -> None:
    with pytest.raises(NoAnswer, match="no JSON"):
        _body(answer(b"[" * 100_000))


def test_an_answer_is_its_body() -> None:
    assert _body(answer(b'{"type": "x", "seq": 5}')) == {"type": "x", "seq": 5}
    assert _body(answer(b'{"error": null, "seq": 5}'))["seq"] == 5


@pytest.mark.parametrize(
    "data", [b"", b"+OK", b"[]", b"5", b"null", b'"error"', b"\xff\xfe{}", b'{"a":', b"[" * 100_000]
)
def test_an_answer_that_is_no_json_object_is_none(data: bytes) -> None:
    with pytest.raises(NoAnswer, match="no JSON") as refused:
        _body(answer(data))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "code", "err_code", "text"),
    [
        ('{"code": 404, "err_code": 10059, "description": "stream not found"}', 404, 10059, "stream not found (10059)"),
        ('{"code": 503}', 503, 0, "no reason given (0)"),
        ('{"description": "two\\nlines"}', 0, 0, "two\\nlines (0)"),
    ],
)
def test_an_error_says_its_code_and_words_on_one_line(error: str, code: int, err_code: int, text: str) -> None:
    with pytest.raises(ApiError) as refused:
        _body(answer(b'{"type": "x", "error": %s}' % error.encode()))
    assert (refused.value.code, refused.value.err_code, str(refused.value)) == (code, err_code, text)


@pytest.mark.parametrize(
    "error",
    [
        '"no"',
        "[1]",
        "7",
        '{"code": "٣"}',
        '{"code": 1e400}',
        '{"code": "x"}',
        '{"description": 5}',
        '{"err_code": null}',
    ],
)
def test_an_error_in_another_shape_is_an_error_all_the_same(error: str) -> None:
    with pytest.raises((ApiError, NoAnswer)) as refused:
        _body(answer(b'{"error": %s}' % error.encode()))
    text: Any = str(refused.value)
    assert text and "\n" not in text


class Answering:
    """A link on which everything is answered alike."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.headers: dict[str, str] = {}

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, timeout: float
    ) -> Message:
        self.headers = headers or {}
        return answer(self._data)


def published(data: bytes) -> Ack:
    link = Answering(data)
    ack = asyncio.run(JetStream(cast(Link, link)).publish("shipper.p0.web1", b"x", {"A": "b"}, "logs-p0"))
    assert link.headers == {"A": "b", "Nats-Expected-Stream": "logs-p0"}
    return ack


def test_an_acknowledgement_names_stream_sequence_and_whether_it_is_a_duplicate() -> None:
    assert published(b'{"stream": "logs-p0", "seq": 5}') == Ack("logs-p0", 5, False)
    assert published(b'{"stream": "logs-p0", "seq": 5, "duplicate": true}') == Ack("logs-p0", 5, True)
    assert published(b'{"stream": "logs-p0", "seq": 0, "duplicate": true}') == Ack("logs-p0", 0, True)
    assert published(b'{"stream": "logs-p0"}').sequence == 0


@pytest.mark.parametrize("data", [b"{}", b'{"seq": 5}', b'{"stream": "x", "seq": "y"}', b'{"stream": "x", "seq": [1]}'])
def test_an_answer_that_is_no_acknowledgement_is_none(data: bytes) -> None:
    with pytest.raises(NoAnswer, match="no acknowledgement"):
        published(data)


def test_a_sequence_that_is_no_number_is_no_acknowledgement() -> None:
    with pytest.raises(NoAnswer, match="no acknowledgement"):
        published(b'{"stream": "x", "seq": Infinity}')
