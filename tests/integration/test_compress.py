# SPDX-License-Identifier: GPL-3.0-or-later
"""SHIPPER_COMPRESS: less is sent and stored, and the promises are the same. Its files are what zcat reads."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper_runtime.jetstream import JetStream
from shipper_runtime.packing import pack
from shipper_runtime.partition import host_subject
from shipper_runtime.wire import UNPACKED_MOST, Span, encode
from tests.integration.durable import HOST, LIFE, STREAM, SUBJECT, DurableFleet, files, fleet_in, reading
from tests.support import run_shipper, wait_for


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[DurableFleet]:
    with fleet_in(tmp_path, compress="gzip") as made:
        yield made


def send_packed(fleet: DurableFleet, begin: int, data: bytes, packed: bytes, partial: str | None = None) -> None:
    """Whatever the server has of these bytes already."""
    span = Span(b"/var/log/app.log", LIFE, begin, begin + len(data), 0, "0" * 32, partial, packed=True)
    fleet.publish(packed, headers=encode(HOST, span, fresh=fleet.state()["last_seq"] + 1))


def stored(fleet: DurableFleet) -> list[tuple[dict[str, str], bytes]]:
    """Headers and payloads of the stream's messages of the host."""

    last = fleet.state()["last_seq"]

    async def ask(js: JetStream) -> list[tuple[dict[str, str], bytes]]:
        found = []
        for sequence in range(1, last + 1):
            answer = await js.link.request("$JS.API.DIRECT.GET." + STREAM, b'{"seq": %d}' % sequence)
            found.append((dict(answer.headers or {}), bytes(answer.data)))
        return found

    return fleet.ask(ask)


def test_blocks_are_appended_as_the_producer_made_them_and_zcat_reads_the_file(fleet: DurableFleet) -> None:
    """Once the archive has them. A group that does not compress gets the same bytes as they are."""
    written = fleet.write(40_000)
    with fleet.producer() as producer, fleet.consumer(group="a") as a:
        fleet.expect(written, "a")
        messages = stored(fleet)
        assert {headers["Shipper-Encoding"] for headers, _payload in messages} == {"gzip"}
        ((name, content),) = files(fleet, "a").items()
        assert name.endswith(".gz")
        assert content == b"".join(payload for _headers, payload in messages)
        assert len(content) < len(written) / 4
        path = fleet.directory("a") / HOST / name
        assert subprocess.run(["zcat", path], capture_output=True, check=True).stdout == written
        assert (producer.stop(), a.stop()) == (0, 0)


def test_a_group_without_it_gets_the_bytes_as_they_are(fleet: DurableFleet) -> None:
    written = fleet.write(40_000) + fleet.write(1)
    with fleet.producer() as producer, fleet.consumer(SHIPPER_COMPRESS="none") as consumer:
        fleet.expect(written)
        assert list(files(fleet, "archive").values()) == [written]
        printed = run_shipper("logs", HOST, env=fleet.common)
        assert (printed.returncode, printed.stdout.encode()) == (0, written)
        assert (producer.stop(), consumer.stop()) == (0, 0)


def test_what_does_not_become_smaller_is_sent_as_it_is(fleet: DurableFleet) -> None:
    noise = os.urandom(300_000).replace(b"\n", b"") + b"\n"
    fleet.log.write_bytes(b"short\n")
    with fleet.producer() as producer, fleet.consumer() as consumer:
        fleet.expect(b"short\n")
        with fleet.log.open("ab") as log:
            log.write(noise)
        fleet.expect(b"short\n" + noise)
        assert not any("Shipper-Encoding" in headers for headers, _payload in stored(fleet))
        assert (producer.stop(), consumer.stop()) == (0, 0)


@pytest.mark.parametrize("output", ["{source}-%Y", "all-%Y"])
def test_what_has_to_be_cut_or_joined_is_unpacked_and_nothing_else(fleet: DurableFleet, output: str) -> None:
    first, again, rest = b"one\ntwo\n", b"two\nthree\n", b"four\n"
    with fleet.consumer(SHIPPER_OUTPUT=output) as consumer:
        send_packed(fleet, 0, first, pack(9, first))
        send_packed(fleet, 4, again, pack(1, again))
        send_packed(fleet, 14, b"fo", pack(1, b"fo"), "more")
        send_packed(fleet, 16, rest[2:], pack(1, rest[2:]))
        fleet.expect(b"one\ntwo\nthree\nfour\n")
        assert consumer.stop() == 0
    ((_name, content),) = files(fleet, "archive").items()
    assert content.startswith(pack(9, first))


def test_one_bad_block_is_rejected_and_stops_nobody(fleet: DurableFleet) -> None:
    """What is no member, one that lies about what it holds, and one that has to be unpacked and is damaged."""
    with fleet.consumer() as consumer:
        reading(consumer)
        send_packed(fleet, 0, b"one\n", gzip.compress(b"one\n"))
        send_packed(fleet, 0, b"one\n", pack(1, b"one\ntwo\n"))
        send_packed(fleet, 0, b"one\n", pack(1, b"one\n")[:-1])
        send_packed(fleet, 0, b"one\n", pack(1, b"one\n"))
        damaged = bytearray(pack(1, b"one\ntwo\n"))
        damaged[-8] ^= 1
        send_packed(fleet, 0, b"one\ntwo\n", bytes(damaged))
        send_packed(fleet, 4, b"two\n", pack(1, b"two\n"))
        fleet.publish(b"plain", subject=host_subject("shipper", 0, "web2"))
        fleet.expect(b"one\ntwo\n")
        wait_for((fleet.directory() / "web2").is_dir)
        assert consumer.stop() == 0
        for count, reason in ((2, "not a gzip member"), (1, "length and offsets disagree"), (1, "damaged gzip member")):
            assert "Rejected %d messages: %s" % (count, reason) in consumer.log


@pytest.mark.parametrize("compress", ["gzip", "none"])
def test_what_holds_a_thousand_times_its_size_keeps_nobody_from_anything(fleet: DurableFleet, compress: str) -> None:
    """Blocks of 1 KB that hold 1 MiB, and come again but for a byte: each has to be unpacked."""
    whole = b"\n" * UNPACKED_MOST
    block = pack(9, whole)
    with fleet.consumer(SHIPPER_COMPRESS=compress) as consumer:
        reading(consumer)
        for begin in range(200):
            send_packed(fleet, begin, whole, block)
        send_packed(fleet, 0, whole + b"\n", pack(9, whole + b"\n"))
        fleet.publish(b"plain", subject=host_subject("shipper", 0, "web2"))
        fleet.expect(whole + b"\n" * 199)
        wait_for((fleet.directory() / "web2").is_dir)
        assert consumer.stop() == 0
        assert "Rejected 1 messages: length and offsets disagree" in consumer.log


def test_a_reader_of_core_nats_rejects_it(fleet: DurableFleet) -> None:
    with fleet.consumer(SHIPPER_STREAM="", SHIPPER_COMPRESS="") as consumer:
        reading(consumer)
        send_packed(fleet, 0, b"one\n", pack(1, b"one\n"))
        fleet.publish(b"plain")
        fleet.expect(b"plain\n")
        assert consumer.stop() == 0
        assert "Rejecting messages on %s: bad Shipper-Encoding" % SUBJECT in consumer.log


def test_a_setting_that_is_changed_begins_other_files(fleet: DurableFleet) -> None:
    """And what the others held that was not committed is as it would have been."""
    with fleet.producer() as producer:
        written = b""
        for turn, compress in enumerate(("none", "gzip", "6", "gzip")):
            with fleet.consumer(SHIPPER_COMPRESS=compress) as consumer:
                reading(consumer)
                written += fleet.write(50, "turn %d" % turn)
                fleet.expect(written)
                consumer.stop(signal.SIGKILL)
        assert sorted(name.rpartition(".")[2] == "gz" for name in files(fleet, "archive")) == [False, True]
        assert producer.stop() == 0


def test_a_torn_member_is_cut_off_when_the_ledger_is_gone(fleet: DurableFleet) -> None:
    """Nothing could be read behind it."""
    with fleet.producer() as producer:
        with fleet.consumer() as consumer:
            written = fleet.write(100, "before")
            fleet.expect(written)
            assert consumer.stop() == 0
        (path,) = (fleet.directory() / HOST).rglob("*.gz")
        for file in (fleet.directory() / ".shipper").iterdir():
            file.unlink()
        with path.open("ab") as file:
            file.write(pack(1, b"never finished\n" * 100)[:-5])
        written += fleet.write(100, "after")
        with fleet.consumer() as consumer:
            fleet.expect(written)
            assert gzip.decompress(path.read_bytes()) == written
            assert (producer.stop(), consumer.stop()) == (0, 0)


def test_a_file_that_somebody_cut_ends_with_a_whole_member(fleet: DurableFleet) -> None:
    with fleet.producer() as producer, fleet.consumer() as consumer:
        kept = fleet.write(500, "kept")
        fleet.expect(kept)
        written = kept + fleet.write(500, "cut")
        fleet.expect(written)
        assert consumer.stop() == 0
        (path,) = (fleet.directory() / HOST).rglob("*.gz")
        os.truncate(path, path.stat().st_size - 3)
        consumer.start()
        after = fleet.write(500, "after")
        wait_for(lambda: fleet.archive().endswith(after))
        content = gzip.decompress(path.read_bytes())
        assert content.startswith(kept) and written.startswith(content[: -len(after)])
        assert "was cut by somebody" in consumer.log
        assert (producer.stop(), consumer.stop()) == (0, 0)


def test_it_needs_durable_mode_and_a_level_that_there_is(tmp_path: Path) -> None:
    env = {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "SHIPPER_FILE": "/x", "SHIPPER_STATE": str(tmp_path)}
    core = run_shipper("producer", "--check", "--compress", "gzip", env=env)
    assert core.returncode == 2
    assert core.stderr.startswith("shipper: SHIPPER_COMPRESS=gzip: ") and "set SHIPPER_STREAM" in core.stderr
    for value in ("0", "10", "zstd", "yes"):
        wrong = run_shipper("producer", "--check", env={**env, "SHIPPER_STREAM": "logs", "SHIPPER_COMPRESS": value})
        assert wrong.returncode == 2
        assert "SHIPPER_COMPRESS=%s: use none, gzip, or a level" % value in wrong.stderr
    assert (
        run_shipper("producer", "--check", env={**env, "SHIPPER_STREAM": "logs", "SHIPPER_COMPRESS": "6"}).returncode
        == 0
    )
