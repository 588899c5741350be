# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime import wire
from shipper_runtime.errors import WireError
from shipper_runtime.wire import Span, decode, encode, subject_host

LIFE = "0123456789abcdef" * 2
HEAD = "00112233445566778899aabbccddeeff"
GOOD = Span(b"/var/log/a b.log", LIFE, 10, 15, 1024, HEAD)

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
spans = st.builds(
    lambda parts, begin, length, partial, since: Span(
        b"/" + b"/".join(parts), LIFE, begin, begin + length + (partial is None), 5, HEAD, partial, since=begin // since
    ),
    st.lists(names, min_size=1, max_size=4),
    st.integers(0, 2**40),
    st.integers(1, 2**20),
    st.sampled_from([None, wire.MORE, wire.FINISHED]),
    st.sampled_from([1, 2, 2**41]),
)


@given(spans)
def test_what_is_encoded_is_decoded(span: Span) -> None:
    headers = encode("web1", span)
    assert decode(headers, span.end - span.begin - (span.partial is None)) == span
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_an_id_names_host_life_begin_and_end() -> None:
    assert encode("web1", GOOD)["Nats-Msg-Id"] == "web1:%s:10:15" % LIFE


@given(spans, st.integers(1, 10**6))
def test_a_fresh_id_is_another_id_of_the_same_bytes(span: Span, fresh: int) -> None:
    plain, again = encode("web1", span), encode("web1", span, fresh)
    assert again["Nats-Msg-Id"] == "%s#%d" % (plain["Nats-Msg-Id"], fresh)
    assert {**again, "Nats-Msg-Id": ""} == {**plain, "Nats-Msg-Id": ""}
    assert decode(again, span.end - span.begin - (span.partial is None)) == span


def test_ids_of_different_bytes_and_fresh_ids_are_all_different() -> None:
    cases = [(Span(b"/a", LIFE, begin, end, 0, HEAD), n) for begin in (0, 1) for end in (11, 12) for n in (0, 1, 2, 11)]
    ids = {encode("web1", span, fresh)["Nats-Msg-Id"] for span, fresh in cases}
    assert len(ids) == len(cases)


def test_what_a_packed_payload_holds_is_bounded_and_its_own_length_is_free() -> None:
    span = GOOD._replace(packed=True)
    headers = encode("web1", span)
    assert headers["Shipper-Encoding"] == "gzip"
    assert headers["Nats-Msg-Id"] == encode("web1", GOOD)["Nats-Msg-Id"]
    assert decode(headers, 4) == decode(headers, 400) == span
    most = span._replace(end=span.begin + wire.UNPACKED_MOST)
    assert decode(encode("web1", most), 4) == most
    for begin, end in ((10, 10), (10, 9), (0, wire.UNPACKED_MOST + 1)):
        with pytest.raises(WireError, match="length and offsets disagree"):
            decode(encode("web1", span._replace(begin=begin, end=end)), 4)


@pytest.mark.parametrize("headers", [None, {}, {"Nats-Msg-Id": "x", "Traceparent": "y"}])
def test_a_message_without_our_headers_is_plain(headers: dict[str, str] | None) -> None:
    assert decode(headers, 4) is None


def test_unknown_headers_are_ignored() -> None:
    assert decode({**encode("web1", GOOD), "Shipper-Future": "x"}, 4) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"Shipper-Life": "x"},
        {"Shipper-Life": LIFE.upper()},
        {"Shipper-Life": None},
        {"Shipper-Begin": "-1"},
        {"Shipper-Begin": "1_0"},
        {"Shipper-Begin": "010"},
        {"Shipper-Begin": "16"},
        {"Shipper-End": "16"},
        {"Shipper-End": "9" * 30},
        {"Shipper-Head": "5"},
        {"Shipper-Partial": "maybe"},
        {"Shipper-Partial": "more"},
        {"Shipper-Encoding": "zstd"},
        {"Shipper-Encoding": ""},
        {"Shipper-Source": "var/log/x"},
        {"Shipper-Source": "/var/../x"},
        {"Shipper-Source": "/var/%2e%2e/x"},
        {"Shipper-Source": "/var//x"},
        {"Shipper-Source": "/x%00"},
        {"Shipper-Source": "/" + "x" * 256},
        {"Shipper-Source": "/x" * 1000},
        {"Shipper-Source": "/"},
        {"Shipper-Since": "11"},
        {"Shipper-Since": "x"},
    ],
)
def test_headers_that_contradict_themselves_are_rejected(change: dict[str, str | None]) -> None:
    headers = {name: value for name, value in {**encode("web1", GOOD), **change}.items() if value is not None}
    with pytest.raises(WireError):
        decode(headers, 4)


def test_the_host_is_what_follows_the_partition() -> None:
    assert subject_host("logs.prod", 4, "logs.prod.p4.web1.example.net") == "web1.example.net"


@pytest.mark.parametrize(
    "subject", ["shipper.p4.a/b", "shipper.p4.../../x", "shipper.p4.", "shipper.p5.web1", "shipper.p4." + "a" * 254]
)
def test_a_subject_without_a_host_is_rejected(subject: str) -> None:
    with pytest.raises(WireError, match="bad host"):
        subject_host("shipper", 4, subject)


@pytest.mark.parametrize("name", ["Nats-Stream", "Nats-Subject", "Nats-Sequence"])
def test_a_servers_answer_is_no_message_of_a_host(name: str) -> None:
    """Whoever may ask for a message can have it sent to another host's subject, our headers and all."""
    headers = encode("web1", Span(b"/var/log/a", "0" * 32, 0, 2, 0, "0" * 32))
    for ours in (headers, {}):
        with pytest.raises(WireError, match="a server's answer"):
            decode({**ours, name: "x"}, 1)
