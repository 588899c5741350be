# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scraper gets, and that nobody who connects can harm the program."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable
from typing import Any, Callable

import pytest

from shipper_runtime import metrics
from shipper_runtime.errors import SettingError
from shipper_runtime.metrics import Registry, serve
from shipper_runtime.settings import Listen


def test_the_text_is_prometheus_format() -> None:
    registry = Registry()
    sent = registry.counter("shipper_published_bytes_total", "Bytes that the broker has.")
    refused = registry.counter("shipper_refused_total", "Blocks refused.", ("reason",))
    lag = registry.gauge("shipper_lag_seconds", "Age.", ("partition", "group"))
    sent.add(2**53)
    sent.add()
    refused.add(1, "full")
    refused.add(2, "no stream")
    lag.set(0.25, "10", "archive")
    lag.set(3, "2", "archive")
    assert registry.exposition().decode() == (
        "# HELP shipper_lag_seconds Age.\n"
        "# TYPE shipper_lag_seconds gauge\n"
        'shipper_lag_seconds{partition="10",group="archive"} 0.25\n'
        'shipper_lag_seconds{partition="2",group="archive"} 3\n'
        "# HELP shipper_published_bytes_total Bytes that the broker has.\n"
        "# TYPE shipper_published_bytes_total counter\n"
        "shipper_published_bytes_total 9007199254740993\n"
        "# HELP shipper_refused_total Blocks refused.\n"
        "# TYPE shipper_refused_total counter\n"
        'shipper_refused_total{reason="full"} 1\n'
        'shipper_refused_total{reason="no stream"} 2\n'
    )


def test_whatever_a_label_or_a_help_holds_is_escaped() -> None:
    registry = Registry()
    registry.counter("a_total", 'back\\slash\n"quoted"', ("x",)).add(1, 'a"b\\c\nd\udc80')
    assert registry.exposition() == (
        b'# HELP a_total back\\\\slash\\n"quoted"\n# TYPE a_total counter\na_total{x="a\\"b\\\\c\\nd?"} 1\n'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.5, "1.5"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (1e-7, "1e-07")],
)
def test_every_number_can_be_shown(value: float, text: str) -> None:
    registry = Registry()
    registry.gauge("x", "x").set(value)
    assert registry.exposition().decode().endswith("\nx %s\n" % text)


def test_a_metric_without_labels_is_there_before_the_first_event_and_a_removed_value_is_gone() -> None:
    registry = Registry()
    registry.counter("a_total", "a")
    lag = registry.gauge("b", "b", ("partition",))
    lag.set(1, "3")
    lag.remove("3")
    assert b"\na_total 0\n" in registry.exposition()
    assert b"b{" not in registry.exposition()


def test_a_value_can_be_computed_at_the_scrape_and_one_that_fails_hides_no_other() -> None:
    def fails() -> float:
        raise RuntimeError

    registry = Registry()
    registry.gauge("a", "a", value=lambda: 7)
    registry.gauge("b", "b", ("partition",), value=lambda: {("1",): 2.5, ("0",): 1})
    registry.gauge("c", "c", value=fails)
    registry.gauge("d", "d")
    text = registry.exposition().decode()
    assert "\na 7\n" in text and '\nb{partition="0"} 1\nb{partition="1"} 2.5\n' in text and "\nd 0\n" in text
    assert "# TYPE c" not in text


def test_a_name_or_label_that_cannot_be_is_refused_at_registration() -> None:
    registry = Registry()
    registry.counter("a_total", "a")
    for register in (
        lambda: registry.counter("a_total", "again"),
        lambda: registry.counter("a", "no total"),
        lambda: registry.gauge("a-b", "a dash"),
        lambda: registry.gauge("b", "b", ("a-b",)),
        lambda: registry.gauge("b", "b").set(1, "label"),
    ):
        with pytest.raises(ValueError):
            register()


def serving(body: Callable[[Registry, int], Awaitable[Any]]) -> Any:
    """The result of body while metrics are served; port is a free one."""

    async def main() -> Any:
        registry = Registry()
        registry.counter("shipper_published_bytes_total", "Bytes.").add(5)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = await serve(registry, Listen("127.0.0.1", port))
        try:
            return await asyncio.wait_for(body(registry, port), 20)
        finally:
            server.close()
            await server.wait_closed()

    return asyncio.run(main())


async def ask(port: int, request: bytes) -> bytes:
    """All that the server answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_metrics_are_served() -> None:
    async def body(registry: Registry, port: int) -> None:
        for request in (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"):
            head, _colon, text = (await ask(port, request)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
            assert b"Content-Length: %d" % len(text) in head
            assert text == registry.exposition()

    serving(body)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/x HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\xff\x00\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 10000, b"400"),
    ],
)
def test_any_other_request_gets_its_status(request_bytes: bytes, status: bytes) -> None:
    async def body(registry: Registry, port: int) -> None:
        assert (await ask(port, request_bytes)).split(b" ")[1] == status

    serving(body)


def test_who_says_nothing_or_goes_away_or_comes_too_often_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_TIMEOUT", 0.5)

    async def body(registry: Registry, port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _turn in range(metrics.CONNECTIONS_MOST)]
        # One too many is let go at once.
        with contextlib.suppress(OSError):
            assert await ask(port, b"") == b""
        for reader, writer in silent:
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()
        assert b" 200 OK" in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")

    serving(body)


def test_a_port_in_use_is_one_line_that_names_the_setting() -> None:
    async def main(listen: Listen) -> None:
        await serve(Registry(), listen)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=r"SHIPPER_METRICS=127\.0\.0\.1:%d: another program" % port):
            asyncio.run(main(Listen("127.0.0.1", port)))
    with pytest.raises(SettingError, match=r"SHIPPER_METRICS=192\.0\.2\.1:9464: this machine does not have"):
        asyncio.run(main(Listen("192.0.2.1", 9464)))
    with pytest.raises(SettingError, match=r"SHIPPER_METRICS=nowhere\.invalid:9464: this host is not known"):
        asyncio.run(main(Listen("nowhere.invalid", 9464)))
