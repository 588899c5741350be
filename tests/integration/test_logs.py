# SPDX-License-Identifier: GPL-3.0-or-later
"""shipper logs against a real server: every line once and in order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from shipper_runtime.broker import connected
from shipper_runtime.jetstream import JetStream
from shipper_runtime.partition import host_subject
from shipper_runtime.permissions import ADMIN_INBOX
from shipper_runtime.settings import broker_settings
from shipper_runtime.wire import MORE, Span, encode
from tests.support import ROOT, NatsServer, clean_environment, wait_for

HOST = "web1.example.net"
LIFE = "0123456789abcdef" * 2
STREAM = "logs-p0"


def settings(server: NatsServer) -> dict[str, str]:
    return {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}


def jetstream(folder: Path) -> str:
    # Synced at once: these servers are killed.
    return 'jetstream { store_dir: "%s", sync_interval: always }' % (folder / "store")


def with_api(server: NatsServer, body: Callable[[JetStream], Awaitable[Any]]) -> Any:
    """The result of body with the API of a server."""

    async def main() -> Any:
        broker = broker_settings({"NATS_URL": server.url})
        async with connected(broker, "test", ADMIN_INBOX) as link:
            return await asyncio.wait_for(body(JetStream(link)), 20)

    return asyncio.run(main())


async def make_stream(api: JetStream) -> None:
    await api.create_stream(
        {
            "name": STREAM,
            "subjects": ["shipper.p0.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_bytes": 1 << 30,
            "allow_direct": True,
            "num_replicas": 1,
        }
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with the stream of partition 0."""
    with NatsServer(tmp_path / "server", jetstream(tmp_path)) as running:
        with_api(running, make_stream)
        yield running


class Source:
    """Publishes blocks of one life of a file, as a producer does."""

    def __init__(self, host: str = HOST, life: str = LIFE) -> None:
        self.offset = 0
        self._host = host
        self._life = life

    async def block(self, api: JetStream, payload: bytes, partial: str | None = None) -> None:
        end = self.offset + len(payload) + (partial is None)
        await self.at(api, self.offset, end, payload, partial)
        self.offset = end

    async def at(self, api: JetStream, begin: int, end: int, payload: bytes, partial: str | None = None) -> None:
        headers = encode(self._host, Span(b"/var/log/x", self._life, begin, end, 0, "0" * 32, partial))
        # The id would have the broker drop a repetition, which is what must be here in some tests.
        del headers["Nats-Msg-Id"]
        await api.publish(host_subject("shipper", 0, self._host), payload, headers, STREAM)


async def plain(api: JetStream, payload: bytes, host: str = HOST) -> None:
    await api.publish(host_subject("shipper", 0, host), payload, {}, STREAM)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "dev", "-W", "error", "-m", "shipper_runtime", "logs", *arguments]


def logs(server: NatsServer, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments),
        env={**clean_environment(), **settings(server)}, cwd=ROOT, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


class Following:
    """``shipper logs --follow`` as a process, its output in a file."""

    def __init__(self, server: NatsServer, folder: Path, *arguments: str) -> None:
        self._out, self._errors = folder / "out", folder / "errors"
        with open(self._out, "wb") as out, open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(
                command("--follow", *arguments, HOST),
                env={**clean_environment(), **settings(server)}, cwd=ROOT, stdout=out, stderr=errors,
            )  # fmt: skip

    @property
    def out(self) -> bytes:
        return self._out.read_bytes()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def wait_for(self, out: bytes, seconds: float = 20.0) -> None:
        wait_for(lambda: self.out == out, seconds, "%r" % out[-100:])

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def following(server: NatsServer, folder: Path, *arguments: str) -> Iterator[Following]:
    it = Following(server, folder, *arguments)
    try:
        yield it
    finally:
        if it.process.poll() is None:
            it.process.kill()
            it.process.wait(10)


def test_every_line_of_the_host_and_no_other_is_printed_once_and_in_order(server: NatsServer) -> None:
    async def prepare(api: JetStream) -> None:
        one, other = Source(), Source(life="f" * 32)
        await one.block(api, b"a1\na2 \xff\0\r")
        await plain(api, b"not this one", host="web1")
        await other.block(api, b"b1")
        await one.block(api, b"long ", MORE)
        await other.block(api, b"b2")
        await one.block(api, b"line\na4")
        await one.at(api, 0, 10, b"a1\na2 \xff\0\r")
        await plain(api, b"plain")
        await plain(api, b"")
        await api.publish(host_subject("shipper", 0, HOST), b"x", {"Shipper-Life": "?"}, STREAM)
        await other.block(api, b"open", MORE)

    with_api(server, prepare)
    result = logs(server, HOST)
    assert result.returncode == 0
    assert result.stdout == b"a1\na2 \xff\0\r\nb1\nb2\nlong line\na4\nplain\n\nopen"
    assert result.stderr == b"shipper: messages left out that are not as docs/wire.md says: 1\n"
    assert with_api(server, lambda api: api.stream_info(STREAM))["state"]["consumer_count"] == 0

    shown = [json.loads(text) for text in logs(server, "--json", HOST).stdout.splitlines()]
    lines = [line["line"].encode(errors="surrogateescape") for line in shown]
    assert b"\n".join(lines) == result.stdout
    assert [line["source"] for line in shown] == ["/var/log/x"] * 6 + [None] * 3
    assert [line["complete"] for line in shown] == [True] * 8 + [False]
    assert {line["host"] for line in shown} == {HOST}
    times = [line["time"] for line in shown[:-1]]
    assert times == sorted(times)
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z\Z", moment) for moment in times)
    assert shown[-1]["time"] is None


def test_large_blocks_come_through_byte_for_byte(server: NatsServer) -> None:
    blocks = [os.urandom(400_000).replace(b"\n", b" ") for _turn in range(100)]

    async def prepare(api: JetStream) -> None:
        source = Source()
        for block in blocks:
            await source.block(api, block)

    with_api(server, prepare)
    assert logs(server, HOST).stdout == b"".join(block + b"\n" for block in blocks)


def test_a_host_that_the_stream_has_nothing_of_is_one_line_on_stderr(server: NatsServer) -> None:
    result = logs(server, "web9")
    assert (result.returncode, result.stdout) == (0, b"")
    assert result.stderr == b"shipper: logs-p0 holds nothing of web9\n"


def test_a_stream_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "server", jetstream(tmp_path)) as bare:
        for arguments in ((HOST,), ("--follow", HOST)):
            result = logs(bare, *arguments)
            assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (2, b"", 1)
            assert b"logs-p0" in result.stderr and b"shipper streams" in result.stderr


@pytest.mark.parametrize("arguments", [("--since", "yesterday", HOST), ("a b",)])
def test_what_cannot_be_asked_for_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with NatsServer(tmp_path) as bare:
        result = logs(bare, *arguments)
    assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (2, b"", 1)


def test_since_begins_at_a_time(server: NatsServer) -> None:
    async def first(api: JetStream) -> None:
        await plain(api, b"old")

    async def second(api: JetStream) -> None:
        await plain(api, b"new")

    with_api(server, first)
    time.sleep(1.1)
    between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(0.1)
    with_api(server, second)
    assert logs(server, "--since", between, HOST).stdout == b"new\n"
    assert logs(server, "--since", "1h", HOST).stdout == b"old\nnew\n"
    result = logs(server, "--since", "0s", HOST)
    assert (result.returncode, result.stdout) == (0, b"")
    assert result.stderr == b"shipper: logs-p0 holds nothing of web1.example.net of that time\n"


def test_it_ends_while_lines_go_on_coming(server: NatsServer) -> None:
    async def body(api: JetStream) -> bytes:
        await plain(api, b"first")

        async def go_on() -> None:
            while True:
                await plain(api, b"x")

        going = asyncio.ensure_future(go_on())
        try:
            result = await asyncio.get_running_loop().run_in_executor(None, lambda: logs(server, HOST))
        finally:
            going.cancel()
            await asyncio.wait({going})
        assert result.returncode == 0
        return result.stdout

    assert with_api(server, body).startswith(b"first\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_follow_goes_on_until_it_is_told_to_stop(server: NatsServer, tmp_path: Path, number: int) -> None:
    source = Source()
    with following(server, tmp_path) as it:
        wait_for(lambda: "holds nothing" in it.errors)
        with_api(server, lambda api: source.block(api, b"a"))
        it.wait_for(b"a\n")
        with_api(server, lambda api: source.block(api, b"b\nc"))
        it.wait_for(b"a\nb\nc\n")
        assert it.stop(number) == 0
        assert it.errors.count("\n") == 1
    assert with_api(server, lambda api: api.stream_info(STREAM))["state"]["consumer_count"] == 0


def test_follow_survives_a_broker_that_is_killed_and_repeats_nothing(server: NatsServer, tmp_path: Path) -> None:
    source = Source()
    with_api(server, lambda api: source.block(api, b"a"))
    with following(server, tmp_path) as it:
        it.wait_for(b"a\n")
        server.kill()
        wait_for(lambda: "trying again" in it.errors)
        server.start()
        with_api(server, lambda api: source.block(api, b"b"))
        with_api(server, lambda api: plain(api, b"c"))
        it.wait_for(b"a\nb\nc\n")
        assert it.stop() == 0


def test_follow_goes_on_when_the_stream_is_made_anew(server: NatsServer, tmp_path: Path) -> None:
    async def fill(api: JetStream) -> None:
        for payload in (b"a", b"b", b"c"):
            await source.block(api, payload)

    async def anew(api: JetStream) -> None:
        await api._ask("STREAM.DELETE.%s" % STREAM, {})
        await make_stream(api)
        # What the producer has no acknowledgement of in the new stream comes again.
        await source.at(api, 4, 6, b"c")
        await source.block(api, b"d")

    source = Source()
    with_api(server, fill)
    with following(server, tmp_path) as it:
        it.wait_for(b"a\nb\nc\n")
        with_api(server, anew)
        it.wait_for(b"a\nb\nc\nd\n")
        assert "made anew" in it.errors
        assert it.stop() == 0


def test_a_reader_that_goes_away_ends_it_without_a_traceback(server: NatsServer) -> None:
    async def prepare(api: JetStream) -> None:
        for number in range(100):
            await plain(api, b"%d" % number * 5000)

    with_api(server, prepare)
    with subprocess.Popen(
        command("--follow", HOST),
        env={**clean_environment(), **settings(server)}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == b"00000"
        process.stdout.close()
        assert process.wait(10) == 1
        assert process.stderr.read() == b""


def test_an_output_that_is_full_is_one_line(server: NatsServer) -> None:
    with_api(server, lambda api: plain(api, b"line"))
    env = {**clean_environment(), **settings(server)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(HOST), env=env, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.stderr == b"shipper: the output cannot be written: No space left on device\n"
    assert done.returncode == 1


def test_a_reader_that_waits_loses_nothing_and_does_not_keep_it_from_stopping(server: NatsServer) -> None:
    expected = b"".join(b"%d\n" % number * 5000 for number in range(200))

    async def prepare(api: JetStream) -> None:
        for number in range(200):
            await plain(api, (b"%d\n" % number * 5000)[:-1])

    with_api(server, prepare)
    for stop in (False, True):
        with subprocess.Popen(
            command("--follow", HOST) if stop else command(HOST),
            env={**clean_environment(), **settings(server)}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            begin = process.stdout.read(10)
            time.sleep(2)
            if stop:
                process.send_signal(signal.SIGINT)
                assert process.wait(10) == 0
            else:
                assert begin + process.stdout.read() == expected
                assert process.wait(10) == 0
            assert process.stderr.read() == b""
