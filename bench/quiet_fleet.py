# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of quiet hosts: very many of them, each a line a second, each line a message of its own, into 20 partitions.

A load generator speaks the wire as our producers do, with all of their headers. First the streams are filled and two
workers empty them, alone; then all of it at once, the generator at 100,000 lines a second: what share the workers
reach on what the broker and the generator leave of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import socket
import tempfile
import time
from pathlib import Path

import chart
import results
from harness import (
    GROUP,
    Program,
    archive_files,
    ask,
    bundle,
    cpu_seconds,
    durable_server,
    make_streams,
    resident_megabytes,
)

from shipper_runtime.jetstream import JetStream
from shipper_runtime.partition import host_subject, partition
from tests.support import NatsServer

PARTITIONS = 20
WORKERS = 2
MEGABYTES_MOST = 300.0
# So many messages go between two acknowledgements: a server drops what is more than 10,000 ahead of its store.
_UNACKNOWLEDGED = 2000
_TEXT = b"2026-11-23T10:%02d:%02d.000000Z app[1042]: request %08x granted, user 4711, 1234 us, 5678 bytes"
_SIZE = len(_TEXT % (0, 0, 0)) + 1
_HEAD = "64:" + hashlib.blake2b(_TEXT[:64], digest_size=16).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100_000, help="how many; %(default)s without")
    parser.add_argument("--rate", type=int, default=100_000, help="lines a second in total; %(default)s without")
    parser.add_argument("--seconds", type=int, default=20, help="how long they write; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.hosts, options.rate, options.seconds)


def measure(folder: Path, hosts: int, rate: int, seconds: int) -> int:
    program = bundle(folder)
    with durable_server(folder) as server:
        common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}
        make_streams(program, {**common, "SHIPPER_PARTITIONS": str(PARTITIONS)}, "350MiB")
        print("%d hosts, %d partitions, %d workers, %d cores" % (hosts, PARTITIONS, WORKERS, os.cpu_count() or 0))
        whole = 2 * hosts
        started = time.monotonic()
        generate(server.port, PARTITIONS, hosts, 0, whole, 0)
        print("  filled      %d messages in %.1f s" % (whole, time.monotonic() - started), flush=True)
        shares = ["%d-%d" % (at, at + PARTITIONS // WORKERS - 1) for at in range(0, PARTITIONS, PARTITIONS // WORKERS)]
        workers = [worker(folder, program, common, share) for share in shares]
        with workers[0] as one, workers[1] as two:
            began = time.monotonic()
            alone = committed(server, PARTITIONS, whole, 600)
            spent = cpu_seconds(one.pid) + cpu_seconds(two.pid)
            took = alone - began
            print("  emptied     in %.1f s by the workers alone, %.0f lines a second" % (took, whole / took))
            print("  CPU         %.1f us a message" % (spent / whole * 1e6), flush=True)
            before = cpu_seconds(one.pid) + cpu_seconds(two.pid), cpu_seconds(server.pid)
            generator = multiprocessing.Process(
                target=generate, args=(server.port, PARTITIONS, hosts, whole, rate * seconds, rate), daemon=True
            )
            began = time.monotonic()
            generator.start()
            generator.join()
            writing = time.monotonic() - began
            sent, done = whole + rate * seconds, ask(server, lambda js: floors(js, PARTITIONS))
            finished = committed(server, PARTITIONS, sent, 900)
            catching_up = finished - began
            used = cpu_seconds(one.pid) + cpu_seconds(two.pid) - before[0], cpu_seconds(server.pid) - before[1]
            memory = max(resident_megabytes(one.pid), resident_megabytes(two.pid))
            descriptors = max(len(os.listdir("/proc/%d/fd" % each.pid)) for each in (one, two))
    share = (done - whole) / (rate * seconds)
    print("  live        %d lines in %.1f s, %.0f a second" % (rate * seconds, writing, rate * seconds / writing))
    print(
        "  share       %.0f %% were committed when the last one was written, all %.1f s later"
        % (100 * share, catching_up - writing)
    )
    print(
        "  CPU         workers %.1f us, nats-server %.1f us a message"
        % tuple(each / (rate * seconds) * 1e6 for each in used)
    )
    print(
        "  memory      %.0f MB resident at most, promised %.0f; %d descriptors" % (memory, MEGABYTES_MOST, descriptors)
    )
    lines = sum(path.stat().st_size for path in archive_files(folder / "archive"))
    print("  archive     %s" % ("has every line" if lines == sent * _SIZE else "does NOT have every line"))
    document = {
        "hosts": hosts,
        "lines_per_second_alone": round(whole / took),
        "cpu_us_per_message_alone": round(spent / whole * 1e6, 1),
        "lines_per_second_live": round(rate * seconds / writing),
        "share_live": round(share, 3),
        "megabytes_resident": round(memory),
        "descriptors": descriptors,
    }
    rows = [
        ("offered", float(rate), "limit"),
        ("sent, while the workers read", rate * seconds / writing, "peer"),
        ("committed, meanwhile", (done - whole) / writing, "ours"),
        ("committed by the workers alone", whole / took, "ours"),
    ]
    note = "lines a second, logarithmic, %d hosts, a message a line, %d workers" % (hosts, WORKERS)
    picture = chart.bars("A fleet of quiet hosts", note, "lines/s", rows)
    results.save("quiet-fleet", document, picture)
    return 0 if lines == sent * _SIZE and memory <= MEGABYTES_MOST else 1


def worker(folder: Path, program: list[str], common: dict[str, str], share: str) -> Program:
    """A consumer of these partitions, such as 0-9."""
    settings = {
        **common,
        "SHIPPER_READ_PARTITIONS": share,
        "SHIPPER_DIRECTORY": str(folder / "archive"),
        "SHIPPER_OUTPUT": "{source}-%Y",
        "SHIPPER_ROTATE": "52w",
        "SHIPPER_GROUP": GROUP,
    }
    (folder / "archive").mkdir(exist_ok=True)
    return Program(program, "consumer", settings, folder / ("worker%s.log" % share))


def generate(port: int, partitions: int, hosts: int, first: int, count: int, rate: int) -> None:
    """Publish count lines, one of each host in turn, the first of them being the how manieth; rate 0: as fast as it
    goes."""
    names = ["h%06d.example.net" % number for number in range(hosts)]
    subjects = [host_subject("shipper", partition(name, partitions), name).encode() for name in names]
    lives = [hashlib.blake2b(name.encode(), digest_size=16).hexdigest() for name in names]
    headers = [
        "NATS/1.0\r\nNats-Msg-Id: %s:%s:%%d:%%d\r\nShipper-Source: /var/log/app.log\r\nShipper-Life: %s\r\n"
        "Shipper-Begin: %%d\r\nShipper-End: %%d\r\nShipper-Head: %s\r\n\r\n" % (name, life, life, _HEAD)
        for name, life in zip(names, lives)
    ]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.load 1\r\n')
        started = time.monotonic()
        some: list[bytes] = []
        for sent, number in enumerate(range(first, first + count), 1):
            turn, host = divmod(number, hosts)
            begin = turn * _SIZE
            head = (headers[host] % (begin, begin + _SIZE, begin, begin + _SIZE)).encode()
            last = sent % _UNACKNOWLEDGED == 0 or sent == count
            some.append(
                b"HPUB %s %s%d %d\r\n%s%s\r\n"
                % (
                    *(subjects[host], b"_INBOX.load " if last else b"", len(head), len(head) + _SIZE - 1, head),
                    _TEXT % (turn // 60 % 60, turn % 60, host),
                )
            )
            if last:
                connection.sendall(b"".join(some))
                some.clear()
                answer = b""
                while b'"seq":' not in answer:
                    answer = answer[-64:] + connection.recv(65536)
                if rate:
                    time.sleep(max(0.0, started + sent / rate - time.monotonic()))


async def floors(js: JetStream, partitions: int) -> int:
    """How many messages all partitions' readers have committed."""
    total = 0
    for number in range(partitions):
        info = await js.consumer_info("logs-p%d" % number, GROUP)
        total += int(info["ack_floor"]["stream_seq"])
    return total


def committed(server: NatsServer, partitions: int, count: int, seconds: float) -> float:
    """When so many messages were committed. Ends the benchmark where that does not come."""
    deadline = time.monotonic() + seconds
    done = 0
    while time.monotonic() < deadline:
        try:
            done = ask(server, lambda js: floors(js, partitions))
        except Exception:  # the consumers are not made yet
            done = 0
        if done >= count:
            return time.monotonic()
        time.sleep(0.25)
    raise SystemExit("%d of %d messages are committed" % (done, count))


if __name__ == "__main__":
    raise SystemExit(main())
