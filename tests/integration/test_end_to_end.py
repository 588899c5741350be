# SPDX-License-Identifier: GPL-3.0-or-later
"""Real files through the real producer, a real server and the real consumer: the archive holds the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support import UNPRIVILEGED, NatsServer, Shipper, archived, wait_for

HOST = "web1.example.net"


class Fleet:
    """One server, one consumer, one producer that tails ``logs/app.log`` or what files says."""

    def __init__(self, folder: Path, output: str = "{source}-%Y", files: str = "") -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.log = self.logs / "app.log"
        self.directory = folder / "archive"
        self.server = NatsServer(folder / "nats").start()
        common = {"NATS_URL": self.server.url, "SHIPPER_SUBJECT": "shipper"}
        self.consumer = Shipper(
            "consumer",
            {
                **common,
                "SHIPPER_DIRECTORY": str(self.directory),
                "SHIPPER_OUTPUT": output,
                "SHIPPER_ROTATE": "52w",
                "SHIPPER_READ_PARTITIONS": "0-9",
            },
            folder / "consumer.log",
        ).start()
        self.consumer.wait_for_log("Waiting for messages on subject shipper.p9.>")
        self.producer = Shipper(
            "producer",
            {
                **common,
                "HOSTNAME": HOST,
                "SHIPPER_PARTITIONS": "10",
                "SHIPPER_FILE": files or str(self.log),
                "SHIPPER_STATE": str(folder / "state"),
            },
            folder / "producer.log",
        )

    def archive(self) -> bytes:
        return archived(self.directory, HOST)

    def expect(self, written: bytes, seconds: float = 20.0) -> None:
        """The archive comes to hold exactly this."""
        deadline = time.monotonic() + seconds
        while self.archive() != written and time.monotonic() < deadline:
            time.sleep(0.05)
        got = self.archive()
        same = next((n for n, (a, b) in enumerate(zip(got, written)) if a != b), min(len(got), len(written)))
        assert got == written, "%d of %d bytes, the same up to %d: %r instead of %r\n%s\n%s" % (
            len(got), len(written), same, got[same : same + 80], written[same : same + 80],
            self.producer.log[-3000:], self.consumer.log[-3000:],
        )  # fmt: skip

    def close(self) -> None:
        for program in (self.producer, self.consumer):
            program.__exit__(None, None, None)
        self.server.__exit__(None, None, None)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


class Writer:
    """Appends numbered lines, now and then odd ones, and remembers every byte."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.path = path
        self.written = bytearray()
        self._random = random.Random(seed)
        self._number = 0

    def write(self, lines: int) -> None:
        with open(self.path, "ab", buffering=0) as file:
            for _turn in range(lines):
                self._number += 1
                odd = self._random.choice([b"", b"\r", b"\x00\xff", b"x" * 2000, b"plain text"])
                line = b"%d %s\n" % (self._number, odd)
                file.write(line)
                self.written += line

    def line(self, line: bytes) -> None:
        with open(self.path, "ab", buffering=0) as file:
            file.write(line)
        self.written += line


def rename_and_create(path: Path, turn: int) -> None:
    for number in range(turn, 0, -1):
        older = path.with_name("%s.%d" % (path.name, number))
        if older.exists():
            older.rename(path.with_name("%s.%d" % (path.name, number + 1)))
    path.rename(path.with_name(path.name + ".1"))
    path.touch()


def copy_and_truncate(path: Path, turn: int) -> None:
    shutil.copyfile(path, path.with_name("%s-%08d" % (path.name, 20260101 + turn)))
    os.truncate(path, 0)


def delete_and_create(path: Path, turn: int) -> None:
    path.unlink()
    path.touch()


Rotate = Callable[[Path, int], None]


def test_every_byte_of_a_file_arrives_as_it_is(fleet: Fleet) -> None:
    content = random.Random(7).randbytes(3_000_000) + b"\n\n\r\n\0\n" + b"y" * 3_000_000 + b"\nend\n"
    fleet.log.write_bytes(content)
    with fleet.producer:
        fleet.expect(content)
        assert "Publishing %s to shipper.p5.%s" % (fleet.log, HOST) in fleet.producer.log
        assert fleet.producer.stop() == 0
        assert fleet.consumer.stop() == 0
    assert "Traceback" not in fleet.producer.log + fleet.consumer.log


def test_a_file_that_may_not_be_read_yet_is_not_said_to_be_published(fleet: Fleet) -> None:
    fleet.log.write_bytes(b"line\n")
    fleet.log.chmod(0)
    fleet.producer._arguments[:0] = UNPRIVILEGED
    with fleet.producer:
        fleet.producer.wait_for_log("Waiting for %s: permission denied" % fleet.log)
        assert "Publishing" not in fleet.producer.log
        fleet.log.chmod(0o600)
        fleet.expect(b"line\n")
        assert fleet.producer.log.count("Publishing %s to shipper.p5.%s" % (fleet.log, HOST)) == 1


def test_a_glob_in_a_folder_that_may_not_be_looked_into_says_so(tmp_path: Path) -> None:
    with contextlib.closing(Fleet(tmp_path, files=str(tmp_path / "logs" / "*.log"))) as fleet:
        fleet.log.write_bytes(b"line\n")
        fleet.logs.chmod(0)
        fleet.producer._arguments[:0] = UNPRIVILEGED
        with fleet.producer:
            fleet.producer.wait_for_log("Waiting for %s/*.log: permission denied" % fleet.logs)
            fleet.logs.chmod(0o700)
            fleet.expect(b"line\n")


def test_a_last_line_waits_for_its_newline(fleet: Fleet) -> None:
    fleet.log.write_bytes(b"whole\nha")
    with fleet.producer:
        fleet.expect(b"whole\n")
        with open(fleet.log, "ab") as file:
            file.write(b"lf\n")
        fleet.expect(b"whole\nhalf\n")


def test_a_restart_goes_on_where_it_was(fleet: Fleet) -> None:
    writer = Writer(fleet.log)
    writer.write(100)
    for _turn in range(3):
        with fleet.producer:
            writer.write(100)
            fleet.expect(bytes(writer.written))
            assert fleet.producer.stop() == 0
        writer.write(50)
    with fleet.producer:
        fleet.expect(bytes(writer.written))


def test_killed_producers_lose_and_double_nothing(fleet: Fleet) -> None:
    writer = Writer(fleet.log)
    chooser = random.Random(3)
    for _turn in range(8):
        with fleet.producer:
            for _turn in range(chooser.randint(1, 10)):
                writer.write(chooser.randint(1, 400))
                time.sleep(chooser.random() * 0.1)
            fleet.producer.stop(signal.SIGKILL)
    with fleet.producer:
        fleet.expect(bytes(writer.written))


@pytest.mark.parametrize("rotate", [rename_and_create, copy_and_truncate, delete_and_create])
def test_ten_rotations_during_traffic(fleet: Fleet, rotate: Rotate) -> None:
    writer = Writer(fleet.log)
    with fleet.producer:
        for turn in range(10):
            writer.write(300)
            if turn == 0:
                # Rotated files that were there before the first start are not the named file's.
                wait_for(lambda: fleet.archive() != b"")
            elif rotate is delete_and_create:
                # What nobody has seen yet cannot be read any more.
                time.sleep(0.4)
            writer.write(200)
            rotate(fleet.log, turn)
        writer.write(100)
        fleet.expect(bytes(writer.written), 40)


@pytest.mark.parametrize("rotate", [rename_and_create, copy_and_truncate])
@pytest.mark.parametrize("times", [1, 2])
def test_rotations_while_the_producer_is_down(fleet: Fleet, rotate: Rotate, times: int) -> None:
    writer = Writer(fleet.log)
    turn = 0
    for _turn in range(5):
        with fleet.producer:
            writer.write(200)
            fleet.expect(bytes(writer.written))
            fleet.producer.stop()
        for _turn in range(times):
            writer.write(150)
            rotate(fleet.log, turn)
            turn += 1
            time.sleep(0.01)
        writer.write(50)
    with fleet.producer:
        fleet.expect(bytes(writer.written))


def test_a_file_that_was_deleted_while_the_producer_was_down_costs_only_its_unread_bytes(fleet: Fleet) -> None:
    writer = Writer(fleet.log)
    with fleet.producer:
        writer.write(200)
        fleet.expect(bytes(writer.written))
        fleet.producer.stop()
    unread = len(writer.written)
    writer.write(10)
    del writer.written[unread:]
    delete_and_create(fleet.log, 0)
    writer.write(100)
    with fleet.producer:
        fleet.expect(bytes(writer.written))


def test_a_broker_that_restarts_during_traffic_costs_the_producer_nothing(fleet: Fleet) -> None:
    writer = Writer(fleet.log)
    with fleet.producer:
        writer.write(200)
        fleet.expect(bytes(writer.written))
        fleet.server.kill()
        writer.write(200)
        rename_and_create(fleet.log, 0)
        writer.write(200)
        fleet.server.start()
        # Core NATS keeps nothing for a consumer that is not back yet: what is written until then may be missing.
        wait_for(lambda: fleet.producer.log.count("Connected to") == 2)
        wait_for(lambda: fleet.consumer.log.count("Waiting for messages on subject shipper.p9.>") == 2)
        writer.write(10)
        wait_for(lambda: fleet.archive().endswith(bytes(writer.written[-20:])))
    got = fleet.archive()
    missing = len(writer.written) - len(got)
    if missing:
        wait_for(lambda: "Missing %d bytes" % missing in fleet.consumer.log or missing > 0)
    lines = got.split(b"\n")
    assert len(set(lines)) == len(lines)


def test_lines_of_several_files_stay_whole_in_a_shared_one(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, output="all-%Y", files="%s/logs/*.log" % tmp_path)
    try:
        writers = [Writer(fleet.logs / ("%s.log" % name), seed) for seed, name in enumerate("abc")]
        with fleet.producer:
            threads = [
                threading.Thread(target=lambda w=writer: [w.write(20) or time.sleep(0.002) for _turn in range(30)])
                for writer in writers
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            writers[0].line(b"z" * 3_000_000 + b"\n")
            size = sum(len(writer.written) for writer in writers)
            wait_for(lambda: len(fleet.archive()) >= size)
        lines = fleet.archive().split(b"\n")
        assert sorted(lines) == sorted(b"".join(bytes(writer.written) for writer in writers).split(b"\n"))
    finally:
        fleet.close()
