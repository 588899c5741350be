# SPDX-License-Identifier: GPL-3.0-or-later
"""Durable mode: whatever is killed, lost or taken away, the archive holds every byte once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from shipper_runtime.connection import Message
from shipper_runtime.jetstream import JetStream
from shipper_runtime.wire import Span, encode
from tests.integration.durable import HOST, LIFE, STREAM, SUBJECT, DurableFleet, files, fleet_in, reading
from tests.support import Shipper, archived, run_shipper, wait_for

SERVERS = ("2.10.26", "2.12.8", "")


# A history that has to end the same whether blocks are compressed or not.
compressed_too = pytest.mark.parametrize("fleet", ["none", "gzip"], indirect=True)


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DurableFleet]:
    with fleet_in(tmp_path, compress=getattr(request, "param", "none")) as made:
        yield made


def block(begin: int, data: bytes, life: str = LIFE) -> tuple[bytes, dict[str, str]]:
    """Payload and headers of a source's bytes from begin on."""
    span = Span(b"/var/log/app.log", life, begin, begin + len(data), 0, "0" * 32)
    return data[:-1], encode(HOST, span)


def send_block(fleet: DurableFleet, begin: int, data: bytes, life: str = LIFE) -> None:
    payload, headers = block(begin, data, life)
    fleet.publish(payload, headers=headers)


@compressed_too
def test_every_byte_of_a_file_arrives_as_it_is_in_both_groups(fleet: DurableFleet) -> None:
    content = os.urandom(2_000_000) + b"\n\n\r\n\0\n" + b"y" * 3_000_000 + b"\nend\n"
    fleet.log.write_bytes(content)
    with fleet.producer() as producer, fleet.consumer(group="a") as a, fleet.consumer(group="b") as b:
        for group in ("a", "b"):
            fleet.expect(content, group)
        assert [program.stop() for program in (producer, a, b)] == [0, 0, 0]
        assert "Traceback" not in producer.log + a.log + b.log
    assert files(fleet, "a") == files(fleet, "b")


@compressed_too
def test_nothing_is_lost_or_doubled_when_everything_is_killed_again_and_again(fleet: DurableFleet) -> None:
    written = bytearray()
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.wait(0.005):
            number += 1
            written.extend(fleet.write(7, "round %d" % number))

    writer = threading.Thread(target=write)
    with fleet.producer() as producer, fleet.consumer() as consumer:
        writer.start()
        try:
            for turn in range(9):
                time.sleep(0.4)
                if turn % 3 == 0:
                    producer.stop(signal.SIGKILL)
                    producer.start()
                elif turn % 3 == 1:
                    consumer.stop(signal.SIGKILL)
                    consumer.start()
                else:
                    fleet.server.kill()
                    fleet.server.start()
        finally:
            over.set()
            writer.join()
        fleet.expect(bytes(written))
        assert (producer.stop(), consumer.stop()) == (0, 0)


@compressed_too
def test_plain_messages_are_neither_lost_nor_doubled_when_the_consumer_is_killed(fleet: DurableFleet) -> None:
    written = b""
    with fleet.consumer() as consumer:
        reading(consumer)
        for turn in range(5):
            lines = [b"turn %d line %d" % (turn, number) for number in range(200)] + [b"same"] * 3
            fleet.publish(*lines)
            written += b"".join(line + b"\n" for line in lines)
            consumer.stop(signal.SIGKILL)
            consumer.start()
        fleet.expect(written)


def test_a_stream_that_is_not_there_yet_is_waited_for_by_both(tmp_path: Path) -> None:
    with fleet_in(tmp_path) as fleet:
        stream = {**fleet.common, "SHIPPER_STREAM": "later", "SHIPPER_SUBJECT": "other"}
        with fleet.producer(**stream) as producer, fleet.consumer(**stream) as consumer:
            written = fleet.write(10)
            producer.wait_for_log("Waiting for stream later-p0")
            consumer.wait_for_log("Waiting for stream later-p0: there is none; make it with `shipper streams`")
            assert run_shipper("streams", env=stream).returncode == 0
            fleet.expect(written)
            assert (producer.stop(), consumer.stop()) == (0, 0)


def test_a_full_stream_holds_the_producer_back_and_nothing_is_lost(tmp_path: Path) -> None:
    with fleet_in(tmp_path, max_bytes="1MiB") as fleet:
        written = fleet.write(80_000)
        with fleet.producer() as producer:
            producer.wait_for_log("the stream is full; the log files keep what it does not take")
            written += fleet.write(1000, "more")
            with fleet.consumer() as consumer:
                fleet.expect(written, seconds=60)
                assert consumer.stop() == 0
            assert producer.stop() == 0


@pytest.mark.parametrize("version", SERVERS)
def test_a_full_stream_moves_again_after_its_reader_was_restarted(tmp_path: Path, version: str) -> None:
    with fleet_in(tmp_path, max_bytes="1MiB", version=version) as fleet:
        written = fleet.write(3000, "before")
        with fleet.producer() as producer:
            with fleet.consumer() as consumer:
                fleet.expect(written)
                consumer.stop(signal.SIGKILL)
            written += fleet.write(60_000, "while the reader is away")
            producer.wait_for_log("the stream is full")
            with fleet.consumer() as consumer:
                fleet.expect(written, seconds=60)
                assert consumer.stop() == 0


@compressed_too
def test_a_broker_that_lost_its_tail_hides_nothing_that_came_after(fleet: DurableFleet) -> None:
    older = fleet.folder / "older"
    with fleet.producer() as producer, fleet.consumer() as consumer:
        written = fleet.write(40, "kept")
        fleet.expect(written)
        fleet.server.kill(signal.SIGTERM)
        shutil.copytree(fleet.store, older)
        fleet.server.start()
        written += fleet.write(60, "lost by the broker")
        fleet.expect(written)
        fleet.settle()
        fleet.server.kill()
        shutil.rmtree(fleet.store)
        older.rename(fleet.store)
        fleet.server.start()
        written += fleet.write(60, "after")
        fleet.expect(written)
        written += fleet.write(1, "and at last")
        fleet.expect(written)
        assert "is not what it was" in consumer.log
        assert (producer.stop(), consumer.stop()) == (0, 0)


def test_a_tail_that_was_lost_and_grew_again_is_seen_before_the_durable_says_what_was_read(fleet: DurableFleet) -> None:
    """A durable that begins behind the old position tells other groups' trimmers that the new messages before it are
    read. The torture lost 367,128 bytes by it (seed 332430, round 149)."""
    older = fleet.folder / "older"
    with fleet.producer() as producer:
        with fleet.consumer() as consumer:
            written = fleet.write(10, "kept")
            fleet.expect(written)
            fleet.server.kill(signal.SIGTERM)
            shutil.copytree(fleet.store, older)
            fleet.server.start()
            written += fleet.write(10, "lost by the broker")
            fleet.expect(written)
            assert consumer.stop() == 0
        fleet.server.kill()
        shutil.rmtree(fleet.store)
        older.rename(fleet.store)
        fleet.server.start()
        for turn in range(5):
            before = fleet.state()["last_seq"]
            written += fleet.write(1, "after %d" % turn)
            wait_for(lambda: fleet.state()["last_seq"] > before)  # noqa: B023 - called at once
        with fleet.consumer() as consumer:
            fleet.expect(written)
            assert "is another one; reading it from its first message" in consumer.log
            assert "came, and not the committed" not in consumer.log
            assert consumer.stop() == 0
        assert producer.stop() == 0


@pytest.mark.parametrize("running", [True, False])
def test_a_stream_that_was_deleted_and_made_anew_hides_nothing(fleet: DurableFleet, running: bool) -> None:
    with fleet.producer() as producer, fleet.consumer() as consumer:
        written = fleet.write(30, "first")
        fleet.expect(written)
        fleet.publish(b"plain")
        wait_for(lambda: any("plain" in name for name in files(fleet, "archive")))
        if not running:
            assert consumer.stop() == 0
        fleet.ask(lambda js: js._ask("STREAM.DELETE." + STREAM, {}))
        fleet.make_streams()
        fleet.publish(b"plain again")
        written += fleet.write(30, "second")
        if not running:
            consumer.start()

        def archived_as(name: str) -> bytes:
            return b"".join(data for path, data in files(fleet, "archive").items() if name in path)

        def done() -> bool:
            return archived_as("app.log") == written and archived_as("plain") == b"plain\nplain again\n"

        wait_for(done, 30, consumer.log[-2000:])
        assert (producer.stop(), consumer.stop()) == (0, 0)


def test_what_a_removed_store_has_left_of_a_durable_hides_nothing_that_came_after(fleet: DurableFleet) -> None:
    """The server gives a new durable the position of an old one whose file it finds."""
    with fleet.consumer() as consumer:
        fleet.publish(*(b"%d" % number for number in range(50)))
        fleet.settle()
        assert consumer.stop() == 0
        fleet.server.kill(signal.SIGTERM)
        (state,) = fleet.store.rglob("o.dat")
        left = state.read_bytes()
        shutil.rmtree(fleet.store)
        state.parent.mkdir(parents=True)
        state.write_bytes(left)
        fleet.server.start()
        fleet.make_streams()
        fleet.publish(b"again")
        consumer.start()
        fleet.expect(b"".join(b"%d\n" % number for number in range(50)) + b"again\n", seconds=20)
        assert consumer.stop() == 0


@compressed_too
def test_a_block_that_is_sent_again_with_more_behind_it_is_trimmed(fleet: DurableFleet) -> None:
    with fleet.consumer() as consumer:
        send_block(fleet, 0, b"one\ntwo\n")
        send_block(fleet, 0, b"one\ntwo\nthree\n")
        send_block(fleet, 4, b"two\n")
        send_block(fleet, 14, b"four\n")
        fleet.expect(b"one\ntwo\nthree\nfour\n")
        consumer.stop(signal.SIGKILL)
        send_block(fleet, 8, b"three\nfour\nfive\n")
        consumer.start()
        fleet.expect(b"one\ntwo\nthree\nfour\nfive\n")


def test_a_hole_is_recorded_and_stops_nobody(fleet: DurableFleet) -> None:
    with fleet.consumer() as consumer:
        send_block(fleet, 0, b"one\n")
        send_block(fleet, 100, b"later\n")
        fleet.expect(b"one\nlater\n")
        consumer.stop()
        assert "Missing 96 bytes of host %s" % HOST in consumer.log


def test_the_position_survives_loss_of_the_servers_consumer(fleet: DurableFleet) -> None:
    with fleet.producer() as producer, fleet.consumer() as consumer:
        written = fleet.write(50, "before")
        fleet.expect(written)
        fleet.ask(lambda js: js.delete_consumer(STREAM, "archive"))
        written += fleet.write(50, "after")
        fleet.expect(written)
        assert consumer.stop() == 0
        fleet.ask(lambda js: js.delete_consumer(STREAM, "archive"))
        written += fleet.write(50, "while it was away")
        consumer.start()
        fleet.expect(written)
        assert (producer.stop(), consumer.stop()) == (0, 0)


@compressed_too
@pytest.mark.parametrize("durable_too", [False, True])
def test_the_archive_survives_loss_of_its_ledger(fleet: DurableFleet, durable_too: bool) -> None:
    with fleet.producer() as producer, fleet.consumer() as consumer:
        written = fleet.write(500, "before")
        fleet.expect(written)
        consumer.stop(signal.SIGKILL)
        shutil.rmtree(fleet.directory() / ".shipper")
        if durable_too:
            fleet.ask(lambda js: js.delete_consumer(STREAM, "archive"))
        written += fleet.write(500, "after")
        consumer.start()
        fleet.expect(written)
        consumer.wait_for_log("was begun beside files that were there")
        written += fleet.write(500, "and more")
        fleet.expect(written)
        assert (producer.stop(), consumer.stop()) == (0, 0)


@compressed_too
def test_a_ledger_from_an_old_copy_is_told_and_files_that_it_does_not_know_are_not_written_twice(
    fleet: DurableFleet,
) -> None:
    output = {"SHIPPER_OUTPUT": "%Y%m%d%H%M%S", "SHIPPER_ROTATE": "1s", "SHIPPER_MAX_AGE": "1d"}
    with fleet.consumer(**output) as consumer:
        fleet.publish(b"one", b"two")
        fleet.settle()
        assert consumer.stop() == 0
        shutil.copytree(fleet.directory() / ".shipper", fleet.folder / "copy")
        time.sleep(1.1)
        consumer.start()
        fleet.publish(b"three", b"four")
        fleet.settle()
        assert consumer.stop() == 0
        assert "old copy" not in consumer.log
        shutil.rmtree(fleet.directory() / ".shipper")
        shutil.copytree(fleet.folder / "copy", fleet.directory() / ".shipper")
        consumer.start()
        consumer.wait_for_log("the ledger is an old copy")
        consumer.stop(signal.SIGKILL)
        consumer.start()
        fleet.publish(b"five")
        fleet.settle()
        assert consumer.stop() == 0
        assert fleet.archive() == b"one\ntwo\nthree\nfour\nfive\n"


def test_a_group_whose_durable_is_gone_keeps_its_messages_while_another_group_trims(tmp_path: Path) -> None:
    with fleet_in(tmp_path, max_bytes="4MiB") as fleet:
        with fleet.producer() as producer, fleet.consumer(group="a") as a, fleet.consumer(group="b") as b:
            written = fleet.write(100, "both")
            fleet.expect(written, "a")
            fleet.expect(written, "b", 40)
            time.sleep(6)  # until a has looked at who reads the stream
            assert b.stop() == 0
            fleet.ask(lambda js: js.delete_consumer(STREAM, "b"))
            written += fleet.write(200_000, "b is away")
            producer.wait_for_log("the stream is full", 60)
            assert b.start()
            fleet.expect(written, "b", 60)
            fleet.expect(written, "a", 60)
            assert [program.stop() for program in (producer, a, b)] == [0, 0, 0]
        assert files(fleet, "a") == files(fleet, "b")


@contextlib.contextmanager
def one_group_left(folder: Path) -> Iterator[tuple[DurableFleet, Shipper, Shipper, bytes]]:
    """A small stream of which the groups a and b have read what was written, and b has been stopped since a saw it."""
    with fleet_in(folder, max_bytes="1MiB") as fleet:
        producer, a, b = fleet.producer(), fleet.consumer(group="a"), fleet.consumer(group="b")
        with producer, a, b:
            reading(a)
            reading(b)
            written = fleet.write(100, "both")
            fleet.expect(written, "a")
            fleet.expect(written, "b", 40)
            time.sleep(6)  # until a has looked at who reads the stream
            assert b.stop() == 0
            yield fleet, producer, a, written


def test_a_forgotten_group_holds_nobody_back(tmp_path: Path) -> None:
    with one_group_left(tmp_path) as (fleet, producer, a, written):
        written += fleet.write(60_000, "b is no more")
        producer.wait_for_log("the stream is full", 60)
        forgotten = run_shipper("forget", "b", env=fleet.common)
        assert forgotten.returncode == 0, forgotten.stderr
        fleet.expect(written, "a", 60)
        assert [program.stop() for program in (producer, a)] == [0, 0]


def test_a_second_archive_host_waits_until_the_partition_is_released_or_taken_over(fleet: DurableFleet) -> None:
    other = fleet.folder / "other"
    with fleet.producer(), fleet.consumer() as first:
        written = fleet.write(20, "first host")
        fleet.expect(written)
        second = fleet.consumer(SHIPPER_DIRECTORY=str(other))
        second.log_path = fleet.folder / "second.log"
        with second:
            second.wait_for_log("to release p0")
            written += fleet.write(20, "still the first host")
            fleet.expect(written)
            assert not (other / HOST).exists()
            assert second.stop() == 0
        fleet.settle()
        first.stop(signal.SIGKILL)
        later = fleet.write(20, "second host")
        taking = fleet.consumer("--take-over", SHIPPER_DIRECTORY=str(other))
        taking.log_path = fleet.folder / "taking.log"
        with taking:
            taking.wait_for_log("logs-p0: taken over from")
            wait_for(lambda: archived_in(other) == later, 20, taking.log)
            # The first host comes back, and must not mix in.
            first.start()
            first.wait_for_log("to release p0")
            later += fleet.write(20, "still the second host")
            wait_for(lambda: archived_in(other) == later, 20, taking.log)
            assert fleet.archive() == written


def archived_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((directory / HOST).rglob("*")) if path.is_file())


@pytest.mark.parametrize("still", ["7", "none"])
def test_a_partition_that_a_host_does_not_read_any_more_goes_on_elsewhere_where_it_ended(
    fleet: DurableFleet, still: str
) -> None:
    other = fleet.folder / "other"
    with fleet.producer(), fleet.consumer() as first:
        written = fleet.write(20, "first host")
        fleet.expect(written)
        assert first.stop() == 0
        later = fleet.write(20, "second host")
        second = fleet.consumer(SHIPPER_DIRECTORY=str(other))
        second.log_path = fleet.folder / "second.log"
        with second, fleet.consumer(SHIPPER_READ_PARTITIONS=still) as first:
            wait_for(lambda: archived_in(other) == later, 60, second.log)
            assert fleet.archive() == written
            assert first.stop() == 0


def test_a_producer_whose_positions_are_gone_says_so_and_sends_nothing_again_unless_told(fleet: DurableFleet) -> None:
    with fleet.consumer() as consumer:
        written = fleet.write(20)
        with fleet.producer() as producer:
            fleet.expect(written)
            assert producer.stop() == 0
            shutil.copytree(fleet.folder / "state", fleet.folder / "older")
            fleet.log.rename(fleet.log.with_name("app.log.1"))
            producer.start()
            written += fleet.write(20, "rotated")
            fleet.expect(written)
            assert producer.stop() == 0
        for kept in (None, fleet.folder / "older"):
            shutil.rmtree(fleet.folder / "state")
            if kept is not None:
                kept.rename(fleet.folder / "state")
            with fleet.producer() as producer:
                assert producer.process is not None and producer.process.wait(15) == 2
            (line,) = producer.log.splitlines()[-1:]
            assert "SHIPPER_STATE=" in line and "--fresh" in line
        with fleet.producer("--fresh"):
            fleet.expect(written + fleet.log.read_bytes())
        assert consumer.stop() == 0


def test_positions_that_are_an_old_copy_are_told_by_a_file_that_they_know(fleet: DurableFleet) -> None:
    """What the copy does not know would be sent again, and what the stream has last is of what it does."""
    fleet.write(20)
    pattern = str(fleet.folder / "[ao]*.log")
    with fleet.producer(SHIPPER_FILE=pattern) as producer:
        wait_for(lambda: int(fleet.state()["messages"]) > 0)
        assert producer.stop() == 0
        shutil.copytree(fleet.folder / "state", fleet.folder / "older")
        producer.start()
        (fleet.folder / "other.log").write_bytes(b"of another file\n")
        wait_for(lambda: int(fleet.state()["messages"]) > 1)
        fleet.write(1)
        wait_for(lambda: int(fleet.state()["messages"]) > 2)
        assert producer.stop() == 0
    shutil.rmtree(fleet.folder / "state")
    (fleet.folder / "older").rename(fleet.folder / "state")
    with fleet.producer(SHIPPER_FILE=pattern) as producer:
        assert producer.process is not None and producer.process.wait(15) == 2
        assert "holds positions that are older than what was sent" in producer.log


def test_a_message_that_the_server_calls_a_duplicate_without_having_it_is_sent_with_another_id(tmp_path: Path) -> None:
    """As 2.10 does with three replicas and a full stream; here a program of ours answers in the stream's place."""
    with fleet_in(tmp_path) as fleet:
        ids: list[str] = []
        sending: list[asyncio.Future[None]] = []

        async def answer(js: JetStream) -> None:
            await js._ask("STREAM.DELETE." + STREAM, {})

            def acknowledge(msg: Message) -> None:
                headers = msg.headers or {}
                ids.append(headers["Nats-Msg-Id"])
                stored = len(ids) > 2
                reply = b'{"stream": "%s", "seq": %d, "duplicate": %s}' % (
                    STREAM.encode(), 7 if stored else 0, b"false" if stored else b"true",
                )  # fmt: skip
                sending.append(asyncio.ensure_future(js.link.send(msg.reply, reply)))

            js.link.subscribe(SUBJECT, acknowledge)
            fleet.write(3)
            with fleet.producer("--fresh") as producer:
                deadline = time.monotonic() + 15
                while len(ids) < 3 and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
                assert producer.stop() == 0

        fleet.ask(answer)
        first, second, third = ids
        assert second == first + "#1" and third == first + "#2"


def test_many_gaps_in_a_stream_are_recorded_and_stop_nobody(fleet: DurableFleet) -> None:
    fleet.publish(*(b"line %d" % number for number in range(1, 21)))

    async def take_out(js: JetStream) -> None:
        for sequence in (3, 4, 8, 15, 19):
            await js._ask("STREAM.MSG.DELETE." + STREAM, {"seq": sequence})

    fleet.ask(take_out)
    left = [number for number in range(1, 21) if number not in (3, 4, 8, 15, 19)]
    with fleet.consumer() as consumer:
        fleet.expect(b"".join(b"line %d\n" % number for number in left))
        assert consumer.stop() == 0
        assert "Missing messages 3 to 4 of stream logs-p0" in consumer.log
        assert "Missing messages 19 to 19 of stream logs-p0" in consumer.log


def test_a_subject_that_is_no_text_stops_nobody(fleet: DurableFleet) -> None:
    with fleet.consumer() as consumer:
        with socket.create_connection(("127.0.0.1", fleet.server.port)) as plain:
            plain.sendall(b"CONNECT {}\r\nPUB shipper.p0.\xff\xfe 3\r\nbad\r\nPING\r\n")
            wait_for(lambda: int(fleet.state()["messages"]) == 1)
        fleet.publish(b"good")
        fleet.expect(b"good\n")
        fleet.settle()
        assert consumer.stop() == 0
        assert "Rejected 1 messages: bad host" in consumer.log


def test_an_archives_root_may_be_a_symbolic_link(fleet: DurableFleet) -> None:
    (fleet.folder / "real").mkdir()
    fleet.directory().symlink_to(fleet.folder / "real")
    with fleet.consumer() as consumer:
        fleet.publish(b"line")
        fleet.expect(b"line\n")
        fleet.settle()
        assert consumer.stop() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_said_and_what_goes_on_there_is_not(fleet: DurableFleet) -> None:
    """It reads again from its last commit every few seconds: of that there is nothing to be said."""
    fleet.directory().mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(fleet.directory())]
    if subprocess.run(size, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with fleet.producer() as producer, fleet.consumer() as consumer:
            reading(consumer)
            (fleet.directory() / "filler").write_bytes(bytes(3 << 20))
            written = fleet.write(100_000)
            consumer.wait_for_log("No space left on device")
            time.sleep(6)
            (fleet.directory() / "filler").unlink()
            fleet.expect(written)
            consumer.wait_for_log("Writing to %s again" % fleet.directory())
            assert consumer.log.count("No space left on device") == 1
            assert consumer.log.count("Waiting for messages") == 1
            assert (producer.stop(), consumer.stop()) == (0, 0)
    finally:
        subprocess.run(["umount", str(fleet.directory())], check=True)


def test_a_line_as_long_as_a_message_may_be_fits_into_a_small_stream(tmp_path: Path) -> None:
    with fleet_in(tmp_path, max_bytes="2MiB") as fleet, fleet.producer(), fleet.consumer():
        written = fleet.write(300, "short")
        fleet.expect(written)
        for number in range(4):
            line = b"%d" % number * 1_040_000 + b"\n"
            with fleet.log.open("ab") as log:
                log.write(line)
            written += line
        fleet.expect(written, seconds=60)


def test_a_group_that_only_an_archive_remembers_is_named_and_can_be_forgotten(tmp_path: Path) -> None:
    with one_group_left(tmp_path) as (fleet, _producer, a, written):
        fleet.ask(lambda js: js.delete_consumer(STREAM, "b"))
        written += fleet.write(60_000, "b is no more")
        a.wait_for_log("Stream logs-p0 is held back by the group b", 60)
        refused = run_shipper("forget", "b", env=fleet.common)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert run_shipper("forget", "--force", "b", env=fleet.common).returncode == 0
        fleet.expect(written, "a", 60)


def test_a_stream_made_anew_while_a_group_is_away_keeps_everything_for_it(tmp_path: Path) -> None:
    with fleet_in(tmp_path, max_bytes="1MiB") as fleet:
        a, b = fleet.consumer(group="a"), fleet.consumer(group="b")
        with a, b:
            fleet.publish(*(b"old %d" % number for number in range(50)))
            fleet.settle("a")
            fleet.settle("b")
            time.sleep(6)  # until a has looked at who reads the stream
            assert b.stop() == 0
            fleet.ask(lambda js: js._ask("STREAM.DELETE." + STREAM, {}))
            fleet.make_streams()
            lines = [b"new %d %s" % (number, b"x" * 5000) for number in range(180)]
            fleet.publish(*lines)
            time.sleep(6)
            assert int(fleet.state()["first_seq"]) == 1
            b.start()
            old = b"".join(b"old %d\n" % number for number in range(50))
            fleet.expect(old + b"".join(line + b"\n" for line in lines), "b", 40)


def test_lines_that_an_older_archive_has_too_are_not_taken_for_its_own(fleet: DurableFleet) -> None:
    folder = fleet.directory() / HOST
    folder.mkdir(parents=True)
    there = b"start\njob 10\nheartbeat ok\nend\n"
    (folder / ("plain-%d" % time.gmtime().tm_year)).write_bytes(there)
    with fleet.consumer() as consumer:
        fleet.publish(b"0", b"heartbeat ok", b"next")
        fleet.expect(there + b"0\nheartbeat ok\nnext\n")
        assert consumer.stop() == 0


@compressed_too
def test_a_line_that_is_not_complete_is_not_lost_when_its_partition_moves(fleet: DurableFleet) -> None:
    span = Span(b"/var/log/app.log", LIFE, 0, 4, 0, "0" * 32, "more")
    with fleet.consumer(SHIPPER_OUTPUT="all-%Y") as first:
        fleet.publish(b"tail", headers=encode(HOST, span))
        fleet.settle()
        assert first.stop() == 0
    with fleet.consumer(SHIPPER_OUTPUT="all-%Y", SHIPPER_READ_PARTITIONS="7"):
        fleet.expect(b"tail\n", seconds=60)


def test_a_partition_count_that_is_raised_and_lowered_again_makes_no_hole(fleet: DurableFleet) -> None:
    """The host is in partition 0 of five and in 5 of ten, and what it sent there the first one need not have."""
    limits = {"SHIPPER_PARTITIONS": "10", "SHIPPER_STREAM_MAX_BYTES": fleet.max_bytes}
    made = run_shipper("streams", env={**fleet.common, **limits})
    assert made.returncode == 0, made.stderr
    written = b""
    with fleet.consumer(SHIPPER_READ_PARTITIONS="0-9") as consumer:
        for count in ("5", "10", "5"):
            written += fleet.write(20, count)
            with fleet.producer(SHIPPER_PARTITIONS=count) as producer:
                fleet.expect(written)
                written += fleet.write(20, "%s again" % count)
                fleet.expect(written)
                assert producer.stop() == 0
        assert consumer.stop() == 0
        assert "issing" not in consumer.log


def test_many_partitions_with_a_backlog_are_read_without_being_cut_off(fleet: DurableFleet) -> None:
    env = {**fleet.common, "SHIPPER_STREAM": "many", "SHIPPER_SUBJECT": "many", "SHIPPER_PARTITIONS": "64"}
    made = run_shipper("streams", env={**env, "SHIPPER_STREAM_MAX_BYTES": "8MiB"})
    assert made.returncode == 0, made.stderr

    async def fill(js: JetStream) -> None:
        for number in range(64):
            for _turn in range(4):
                await js.publish("many.p%d.web%d" % (number, number), b"x" * 520_000, {}, "many-p%d" % number)

    fleet.ask(fill)
    with fleet.consumer(**env, SHIPPER_READ_PARTITIONS="0-63") as consumer:
        root = fleet.directory()
        wait_for(lambda: len(list(root.glob("web*/plain-*"))) == 64, 60)
        wait_for(lambda: all(path.stat().st_size == 4 * 520_001 for path in root.glob("web*/plain-*")), 60)
        assert consumer.stop() == 0
        assert "Disconnected" not in consumer.log


@pytest.mark.parametrize("workers", [("0,1",), ("0", "1")], ids=["one worker", "two workers"])
def test_hosts_that_publish_to_two_partitions_keep_no_other_host_from_anything(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    with fleet_in(tmp_path) as fleet, contextlib.ExitStack() as stack:
        made = run_shipper("streams", env={**fleet.common, "SHIPPER_PARTITIONS": "2"})
        assert made.returncode == 0, made.stderr
        over, sent = threading.Event(), 0
        bad = [b"shipper.p%d.bad%d" % (partition, host) for partition in (0, 1) for host in (1, 2, 3)]

        def disturb() -> None:
            nonlocal sent
            with socket.create_connection(("127.0.0.1", fleet.server.port)) as plain:
                plain.sendall(b'CONNECT {"verbose":false}\r\n')
                while not over.wait(0.005):
                    # In another order each time, so that whoever reads wants what the other one has.
                    turn = bad[sent % 6 :] + bad[: sent % 6]
                    plain.sendall(b"".join(b"PUB %s 4\r\nline\r\n" % subject for subject in turn))
                    sent += 1

        def holds(host: str, lines: int) -> bool:
            return archived(fleet.directory(), host).count(b"\n") == lines

        programs = [stack.enter_context(fleet.consumer(SHIPPER_READ_PARTITIONS=own)) for own in workers]
        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        try:
            wait_for(lambda: all((fleet.directory() / ("bad%d" % host)).is_dir() for host in (1, 2, 3)))
            for number in range(20):
                for partition in (0, 1):
                    name = "good%d" % partition
                    fleet.publish(
                        b"%d" % number, subject="shipper.p%d.%s" % (partition, name), stream="logs-p%d" % partition
                    )
                time.sleep(0.1)
            for name in ("good0", "good1"):
                wait_for(partial(holds, name, 20), 8, name)
        finally:
            over.set()
            disturbing.join()
        for name in ("bad1", "bad2", "bad3"):
            wait_for(partial(holds, name, 2 * sent), 20, name)
        assert [program.stop() for program in programs] == [0] * len(programs)


def test_a_backlog_that_is_too_old_already_is_read_to_its_end(fleet: DurableFleet) -> None:
    fleet.publish(*(b"%d" % number for number in range(300)))
    time.sleep(3)
    with fleet.consumer(SHIPPER_OUTPUT="log-%Y%m%d%H%M%S", SHIPPER_ROTATE="1s", SHIPPER_MAX_AGE="1s") as consumer:
        for turn in range(10):
            fleet.publish(*(b"%d" % number for number in range(turn * 10)))
            time.sleep(0.3)
        fleet.settle()
        assert consumer.stop() == 0
        assert "again" not in consumer.log


def test_plain_messages_can_be_refused(fleet: DurableFleet) -> None:
    with fleet.consumer(SHIPPER_PLAIN="reject") as consumer:
        fleet.publish(b"forged")
        send_block(fleet, 0, b"mine\n")
        fleet.expect(b"mine\n")
        assert consumer.stop() == 0
        assert "Rejected 1 messages: no headers, and SHIPPER_PLAIN=reject" in consumer.log


def test_lines_of_sources_that_share_a_file_stay_whole_when_the_consumer_is_killed(fleet: DurableFleet) -> None:
    long = b"x" * 3_000_000
    fleet.log.write_bytes(b"short\n" + long)
    with fleet.producer() as producer, fleet.consumer(SHIPPER_OUTPUT="all-%Y") as consumer:
        fleet.expect(b"short\n")
        wait_for(lambda: int(fleet.state()["bytes"]) > 1_500_000)
        consumer.stop(signal.SIGKILL)
        consumer.start()
        fleet.publish(b"plain")
        fleet.expect(b"short\nplain\n")
        consumer.stop(signal.SIGKILL)
        with fleet.log.open("ab") as log:
            log.write(b"end\nlast\n")
        consumer.start()
        fleet.expect(b"short\nplain\n" + long + b"end\nlast\n")
        assert (producer.stop(), consumer.stop()) == (0, 0)
