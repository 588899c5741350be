# SPDX-License-Identifier: GPL-3.0-or-later
"""The consumer as a process, with a real server and publishers that are not ours, some of them hostile."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

import pytest

from shipper_runtime.wire import MORE, Span, encode
from tests.support import NatsServer, Shipper, archived, run_shipper, wait_for

HOST = "web1.example.net"
LIFE = "0123456789abcdef" * 2


class Publisher:
    """Writes the protocol itself, so that it can send what no client would."""

    def __init__(self, server: NatsServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self._reader = self._socket.makefile("rb")
        assert self._reader.readline().startswith(b"INFO ")
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"protocol":1}\r\n')

    def publish(
        self, subject: bytes | str, payload: bytes = b"", headers: bytes | Mapping[str, str] | None = None
    ) -> None:
        subject = subject if isinstance(subject, bytes) else subject.encode()
        if headers is None:
            self._socket.sendall(b"PUB %s %d\r\n%s\r\n" % (subject, len(payload), payload))
            return
        if not isinstance(headers, bytes):
            lines = "".join("%s: %s\r\n" % item for item in headers.items())
            headers = ("NATS/1.0\r\n%s\r\n" % lines).encode()
        sizes = (len(headers), len(headers) + len(payload))
        self._socket.sendall(b"HPUB %s %d %d\r\n%s%s\r\n" % (subject, *sizes, headers, payload))

    def block(self, begin: int, data: bytes, host: str = HOST, partial: str | None = None, life: str = LIFE) -> int:
        """Publish bytes of a source as a producer does, and return where they end."""
        payload = data if partial else data[:-1]
        head = blake2b(data[:1024], digest_size=16).hexdigest()
        span = Span(b"/var/log/app.log", life, begin, begin + len(data), min(1024, len(data)), head, partial)
        self.publish("shipper.p0." + host, payload, encode(host, span))
        return begin + len(data)

    def flush(self) -> None:
        """Return when the server has taken all of it; what it says of an error is passed over."""
        self._socket.sendall(b"PING\r\n")
        while True:
            line = self._reader.readline()
            assert line, "the server closed the connection"
            if line == b"PONG\r\n":
                return
            if line == b"PING\r\n":
                self._socket.sendall(b"PONG\r\n")

    def close(self) -> None:
        self._reader.close()
        self._socket.close()


class World:
    """A server, a consumer's settings, and publishers."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        self.folder = folder
        self.server = server
        self.directory = folder / "archive"
        self.publishers: list[Publisher] = []

    def publisher(self) -> Publisher:
        self.publishers.append(Publisher(self.server))
        return self.publishers[-1]

    def env(self, **more: str) -> dict[str, str]:
        return {
            "NATS_URL": self.server.url,
            "SHIPPER_SUBJECT": "shipper",
            "SHIPPER_DIRECTORY": str(self.directory),
            "SHIPPER_OUTPUT": "messages-%Y%m%d",
            **more,
        }

    def consumer(self, **more: str) -> Shipper:
        return Shipper("consumer", self.env(**more), self.folder / "consumer.log")

    def bytes_of(self, host: str) -> bytes:
        return archived(self.directory, host) if (self.directory / host).is_dir() else b""

    def wait_for_bytes(self, host: str, data: bytes, seconds: float = 15.0) -> None:
        try:
            wait_for(lambda: self.bytes_of(host) == data, seconds)
        except AssertionError:
            assert self.bytes_of(host) == data


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with NatsServer(tmp_path / "nats", getattr(request, "param", "")) as server:
        the_world = World(tmp_path, server)
        yield the_world
        for publisher in the_world.publishers:
            publisher.close()


def reading(consumer: Shipper) -> Shipper:
    wait_for(lambda: "Waiting for messages on subject" in consumer.log, what=str(consumer.log_path))
    return consumer


def test_one_message_a_line_without_headers_comes_out_as_the_lines_were(world: World) -> None:
    lines = [b"first", b"", b"\0", b"crlf\r", b"\xff\xfe", b"tab\tand \x0b\x0c", b"", "größe".encode(), b"last"]
    with world.consumer() as consumer:
        reading(consumer)
        publisher = world.publisher()
        for line in lines:
            publisher.publish("shipper.p0." + HOST, line)
        world.wait_for_bytes(HOST, b"".join(line + b"\n" for line in lines))
        (file,) = (world.directory / HOST).iterdir()
        assert re.fullmatch(r"messages-\d{8}", file.name)
        assert 'Creating new log "%s"' % file in consumer.log
        assert "Waiting for messages on subject shipper.p0.> @ %s" % world.server.url in consumer.log
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750
        assert consumer.stop() == 0


def test_each_partition_asked_for_is_read_and_no_other(world: World) -> None:
    with world.consumer(SHIPPER_READ_PARTITIONS="0,2-3") as consumer:
        reading(consumer)
        publisher = world.publisher()
        for number in range(5):
            publisher.publish("shipper.p%d.host%d" % (number, number), b"x")
        publisher.publish("shipper.p0.done", b"x")
        world.wait_for_bytes("done", b"x\n")
        assert consumer.stop() == 0
    assert {path.name for path in world.directory.iterdir()} == {"host0", "host2", "host3", "done"}


def test_blocks_with_headers_go_to_their_sources_file_once_and_plain_lines_beside_it(world: World) -> None:
    with world.consumer(SHIPPER_OUTPUT="{source}.%Y%m%d") as consumer:
        reading(consumer)
        publisher = world.publisher()
        end = publisher.block(0, b"one\ntwo\n")
        publisher.block(0, b"one\ntwo\n")
        end = publisher.block(end, b"\0" * 1000 + b"\r\n")
        end = publisher.block(end, b"long ", partial=MORE)
        end = publisher.block(end, b"line\n")
        publisher.block(0, b"another life\n", life="f" * 32)
        publisher.publish("shipper.p0." + HOST, b"plain")
        wait_for(lambda: list(world.directory.glob(HOST + "/plain.*")), what=consumer.log)
        (source,) = world.directory.glob(HOST + "/var/log/app.log.*")
        assert source.read_bytes() == b"one\ntwo\n" + b"\0" * 1000 + b"\r\nlong line\nanother life\n"
        (plain,) = world.directory.glob(HOST + "/plain.*")
        assert plain.read_bytes() == b"plain\n"
        assert consumer.stop() == 0
        assert "8 bytes repeated" in consumer.log


def test_plain_messages_are_refused_where_that_is_set_and_blocks_are_not(world: World) -> None:
    with world.consumer(SHIPPER_PLAIN="reject") as consumer:
        reading(consumer)
        publisher = world.publisher()
        for _turn in range(5):
            publisher.publish("shipper.p0." + HOST, b"forged")
        publisher.publish("shipper.p0." + HOST, b"forged", {"Other": "header"})
        publisher.block(0, b"mine\n")
        world.wait_for_bytes(HOST, b"mine\n")
        assert consumer.stop() == 0
        assert consumer.log.count("Rejecting messages on shipper.p0.%s: no headers" % HOST) == 1
        assert "Rejected 6 messages: no headers, and SHIPPER_PLAIN=reject" in consumer.log


HOSTILE_HOSTS = [
    b"../../x",
    b"..",
    b"a/b",
    b"/etc/passwd",
    b"a" * 300,
    b".".join([b"a" * 60] * 5),
    b"a\0b",
    b"\xff\xfe",
    b"a\x0bb",
    b"a\x0cb",
    b"shipper.p0.\x0bweb1",
    b"*",
    b"a%2fb",
    b"~root",
    b"$(id)",
    "größe".encode(),
    b"a\\b",
    b"-",
    b"\x1b[31mred",
]
GOOD_AMONG_THEM = {"-"}
SPAN = encode(HOST, Span(b"/var/log/evil", LIFE, 0, 2, 0, "0" * 32))


def _headers(**changes: str | None) -> dict[str, str]:
    renamed = {"Shipper-" + name: value for name, value in changes.items()}
    return {name: value for name, value in {**SPAN, **renamed}.items() if value is not None}


HOSTILE_HEADERS: list[bytes | dict[str, str]] = [
    _headers(Source="../../x"),
    _headers(Source="/../../x"),
    _headers(Source="/a/./b"),
    _headers(Source="/a%00b"),
    _headers(Source="/a%2f..%2f..%2fb"),
    _headers(Source="/" + "a" * 300),
    _headers(Source="/a" * 1000),
    _headers(Source=""),
    _headers(Source="/"),
    _headers(Begin="-1"),
    _headers(End="99999999999999999999999999"),
    _headers(End="1"),
    _headers(Begin="5", End="3"),
    _headers(Begin="٣"),
    _headers(Life="../../x"),
    _headers(Life=None),
    _headers(Head="1:x"),
    _headers(Partial="maybe"),
    b"NATS/1.0\r\nShipper-Source\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\nShipper-\xff: x\r\n\r\n",
    b"NATS/1.0 503\r\nShipper-Life: x\r\n\r\n",
    b"NATS/1.0\r\nShipper-Life:\0\0\r\n\r\n",
    b"garbage\r\n\r\n",
]


def test_hostile_publishers_write_nowhere_and_stop_nobody(world: World) -> None:
    expected = b""
    with world.consumer(SHIPPER_OUTPUT="{source}.%Y") as consumer:
        reading(consumer)
        good, end = world.publisher(), 0
        for number in range(3):
            for host in HOSTILE_HOSTS:
                evil = world.publisher()
                evil.publish(b"shipper.p0." + host, b"x")
                evil.publish(b"shipper.p0." + host, b"x", SPAN)
                evil.publish(b"shipper.p0.", b"x")
                evil.publish(b"shipper.p0", b"x")
            for headers in HOSTILE_HEADERS:
                evil = world.publisher()
                evil.publish("shipper.p0.evil", b"x", headers)
                line = b"%d\n" % number
                expected += line
                end = good.block(end, line)
        evil.flush()
        good.flush()
        world.wait_for_bytes(HOST, expected)
        assert consumer.stop() == 0
    assert {path.name for path in world.directory.iterdir()} - {"evil"} == {HOST} | GOOD_AMONG_THEM
    assert {path.name for path in world.folder.iterdir()} == {"archive", "nats", "consumer.log"}
    inside = {str(path.relative_to(world.directory)) for path in world.directory.rglob("*") if path.is_file()}
    year = time.gmtime().tm_year
    assert inside <= {
        "%s/var/log/app.log.%d" % (HOST, year), "-/plain.%d" % year, "-/var/log/evil.%d" % year, "evil/plain.%d" % year,
    }  # fmt: skip
    assert consumer.log.count("Rejecting messages on shipper.p0.a/b: bad host") == 1
    assert re.search(r"Rejected \d+ messages: bad host", consumer.log)
    assert "\x1b" not in consumer.log and "\0" not in consumer.log
    assert max(map(len, consumer.log.splitlines())) < 400


def test_one_hosts_broken_folder_costs_only_its_own_lines(world: World) -> None:
    world.directory.mkdir()
    outside = world.folder / "outside"
    outside.mkdir()
    (world.directory / "linked").symlink_to(outside)
    (world.directory / "blocked").write_bytes(b"")
    with world.consumer() as consumer:
        reading(consumer)
        publisher = world.publisher()
        for _turn in range(3):
            for host in ("linked", "blocked", HOST):
                publisher.publish("shipper.p0." + host, b"x")
            publisher.flush()
            time.sleep(0.05)
        world.wait_for_bytes(HOST, b"x\nx\nx\n")
        assert consumer.stop() == 0
        assert list(outside.iterdir()) == []
        assert "Lost 6 bytes of host blocked: they could not be written" in _joined(consumer.log)
        assert len(re.findall("Cannot write .*: Not a directory", consumer.log)) == 2


def _joined(log: str) -> str:
    """The log with the reports of one host's losses added up."""
    lost = sum(int(number) for number in re.findall(r"Lost (\d+) bytes of host blocked", log))
    return re.sub(r"Lost \d+ bytes of host blocked", "Lost %d bytes of host blocked" % lost, log)


def test_more_hosts_than_descriptors_lose_nothing(world: World) -> None:
    consumer = world.consumer()
    consumer._arguments[:0] = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    hosts = ["host%d" % number for number in range(150)]
    with consumer:
        reading(consumer)
        publisher = world.publisher()
        for number in range(4):
            for host in hosts:
                publisher.publish("shipper.p0." + host, b"%d" % number)
            publisher.flush()
        for host in hosts:
            world.wait_for_bytes(host, b"0\n1\n2\n3\n")
        assert len(os.listdir("/proc/%d/fd" % consumer.pid)) < 64
        assert consumer.stop() == 0
        assert "Cannot" not in consumer.log


@pytest.mark.parametrize("world", ["max_pending: 1MB\nwrite_deadline: 1s\n"], indirect=True)
def test_what_a_stopped_consumer_missed_is_counted(world: World) -> None:
    """A server gives up on a reader that takes nothing; what it threw away shows as a hole in the offsets."""
    line = b"x" * 65535 + b"\n"
    with world.consumer(SHIPPER_OUTPUT="{source}.%Y") as consumer:
        reading(consumer)
        publisher = world.publisher()
        end = publisher.block(0, line)
        world.wait_for_bytes(HOST, line)
        consumer.send(signal.SIGSTOP)
        for _turn in range(400):
            end = publisher.block(end, line)
        publisher.flush()
        wait_for(lambda: "Slow Consumer Detected" in world.server.log)
        consumer.send(signal.SIGCONT)
        wait_for(lambda: consumer.log.count("Waiting for messages on subject") == 2, what=consumer.log)
        end = publisher.block(end, b"after\n")
        wait_for(lambda: world.bytes_of(HOST).endswith(b"after\n"))
        consumer.wait_for_log("Missing ")
        assert consumer.stop() == 0
        missing = sum(int(number) for number in re.findall(r"Missing (\d+) bytes of host %s" % HOST, consumer.log))
        assert missing == end - len(world.bytes_of(HOST)) > 0


def test_a_stop_writes_what_the_server_has_taken_and_ends_quickly(world: World) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        host = "host%d" % number
        consumer = world.consumer()
        consumer.log_path.unlink(missing_ok=True)
        with consumer:
            reading(consumer)
            publisher = world.publisher()
            for line in range(3000):
                publisher.publish("shipper.p0." + host, b"%d" % line)
            publisher.flush()
            began = time.monotonic()
            assert consumer.stop(number) == 0
            assert time.monotonic() - began < 10
        assert world.bytes_of(host) == b"".join(b"%d\n" % line for line in range(3000))


def test_a_line_that_is_not_complete_at_a_stop_is_written_too(world: World) -> None:
    with world.consumer() as consumer:
        reading(consumer)
        publisher = world.publisher()
        publisher.block(0, b"unfinished", partial=MORE)
        publisher.publish("shipper.p0." + HOST, b"plain")
        world.wait_for_bytes(HOST, b"plain\n")
        assert consumer.stop() == 0
    assert world.bytes_of(HOST) == b"plain\nunfinished\n"


def test_old_files_go_also_those_of_hosts_that_are_silent(world: World) -> None:
    silent = world.directory / "silent"
    silent.mkdir(parents=True)
    (silent / "log-20200101000000").write_bytes(b"old\n")
    (silent / "log-20200101000000.gz").write_bytes(b"an operator's\n")
    env = {"SHIPPER_OUTPUT": "log-%Y%m%d%H%M%S", "SHIPPER_ROTATE": "1s", "SHIPPER_MAX_AGE": "2s"}
    with world.consumer(**env) as consumer:
        reading(consumer)
        wait_for(lambda: not (silent / "log-20200101000000").exists())
        publisher = world.publisher()
        publisher.publish("shipper.p0." + HOST, b"x")
        (first,) = wait_for(lambda: list((world.directory / HOST).glob("*")) if world.bytes_of(HOST) else None)
        appeared = time.time()
        wait_for(lambda: not first.exists())
        assert time.time() - appeared > 1.5
        publisher.publish("shipper.p0." + HOST, b"y")
        world.wait_for_bytes(HOST, b"y\n", 3)
        assert consumer.stop() == 0
    assert [path.name for path in silent.iterdir()] == ["log-20200101000000.gz"]


def test_a_server_that_restarts_is_found_again(world: World) -> None:
    with world.consumer() as consumer:
        reading(consumer)
        publisher = world.publisher()
        publisher.publish("shipper.p0." + HOST, b"before")
        world.wait_for_bytes(HOST, b"before\n")
        world.server.kill()
        consumer.wait_for_log("Disconnected")
        consumer.wait_for_log("What is published until the next connection is lost")
        world.server.start()
        wait_for(lambda: consumer.log.count("Waiting for messages on subject") == 2, 30, consumer.log)
        world.publisher().publish("shipper.p0." + HOST, b"after")
        world.wait_for_bytes(HOST, b"before\nafter\n")
        assert consumer.stop() == 0


def test_a_consumer_stops_while_there_is_no_server(tmp_path: Path) -> None:
    env = {
        "NATS_URL": "127.0.0.1:1",
        "SHIPPER_SUBJECT": "s",
        "SHIPPER_DIRECTORY": str(tmp_path / "a"),
        "SHIPPER_OUTPUT": "x",
    }
    with Shipper("consumer", env, tmp_path / "log") as consumer:
        consumer.wait_for_log("Cannot connect")
        assert consumer.stop() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_waited_for_and_nothing_is_lost_or_torn(world: World) -> None:
    world.directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(world.directory)], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with world.consumer() as consumer:
            reading(consumer)
            publisher = world.publisher()
            end = publisher.block(0, b"before\n")
            world.wait_for_bytes(HOST, b"before\n")
            (world.directory / "filler").write_bytes(bytes(900 * 1024))
            block = b"x" * 99 + b"\n"
            for _turn in range(10):
                end = publisher.block(end, block * 500)
            consumer.wait_for_log("No space left on device; waiting")
            time.sleep(1.5)
            kept = world.bytes_of(HOST)
            assert kept.endswith(b"\n") and (b"before\n" + block * 5000).startswith(kept)
            (world.directory / "filler").unlink()
            world.wait_for_bytes(HOST, b"before\n" + block * 5000)
            assert consumer.log.count("No space left on device; waiting") == 1
            assert consumer.stop() == 0
    finally:
        subprocess.run(["umount", str(world.directory)], check=True)


def test_a_check_says_what_is_wrong_and_makes_nothing(tmp_path: Path) -> None:
    env = {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "SHIPPER_OUTPUT": "log"}
    good = run_shipper("consumer", "--check", env={**env, "SHIPPER_DIRECTORY": str(tmp_path / "new")})
    assert (good.returncode, good.stderr) == (0, "")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"")
    for more, words in (
        ({"SHIPPER_DIRECTORY": str(tmp_path / "file")}, "it is not a folder"),
        ({"SHIPPER_OUTPUT": "%d-%m-%Y", "SHIPPER_DIRECTORY": str(tmp_path)}, "would not sort by time"),
    ):
        for arguments in (["consumer", "--check"], ["consumer"]):
            bad = run_shipper(*arguments, env={**env, **more})
            assert bad.returncode == 2
            assert words in bad.stderr and bad.stderr.count("\n") == 1, bad.stderr
