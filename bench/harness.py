# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: deterministic lines, our programs as processes, a broker that keeps, and what it costs."""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The folder above is not on the path before.
from shipper_runtime.broker import connected  # noqa: E402
from shipper_runtime.jetstream import JetStream  # noqa: E402
from shipper_runtime.ledger import FOLDER as LEDGER_FOLDER  # noqa: E402
from shipper_runtime.permissions import ADMIN_INBOX  # noqa: E402
from shipper_runtime.settings import broker_settings  # noqa: E402
from shipper_runtime.wire import END  # noqa: E402
from tests.support import NatsServer, clean_environment  # noqa: E402

LINES = 1_500_000
BLOCK = 512 * 1024
MEGABYTE = 1_000_000
QUIET_SECONDS = 5.0
HOST = "web1.example.net"
SUBJECT = "shipper.p0." + HOST
STREAM = "logs-p0"
GROUP = "archive"
SYNC = "2m"
"""How often nats-server syncs what it stores to the disk, where nothing else is said."""

_TICKS = os.sysconf("SC_CLK_TCK")
_Result = TypeVar("_Result")
_WORDS = ("accepted", "closed", "denied", "expired", "flushed", "granted", "listening", "opened", "queued", "retried")


def lines(count: int) -> Iterator[bytes]:
    """Lines as a busy service writes them, 89 to 119 bytes with their newlines; the same ones every time."""
    for number in range(count):
        scrambled = number * 2654435761 % 4294967296
        yield b"2026-11-23T%02d:%02d:%02d.%06dZ app[%d]: request %08x %s, user %d, %d us, %d bytes%s\n" % (
            *(number // 3600000 % 24, number // 60000 % 60, number // 1000 % 60, number % 1000 * 1000),
            *(1000 + scrambled % 30000, scrambled, _WORDS[scrambled % 10].encode(), scrambled % 100000),
            *(scrambled % 900000, scrambled % 65536, b"." * ((scrambled >> 8) % 16)),
        )


def write_lines(path: Path, count: int) -> None:
    """A file of so many lines."""
    with path.open("wb", buffering=1 << 20) as file:
        file.writelines(lines(count))


def bundle(folder: Path) -> list[str]:
    """How hosts start the program: the one file that is built for them, with a Python that has nothing else."""
    built = subprocess.check_output([sys.executable, str(ROOT / "shipper_runtime" / "bundle.py"), str(folder)])
    return [os.path.realpath(sys.executable), json.loads(built)["path"]]


class Program:
    """One of our programs, as a host runs it; a context manager that stops it."""

    def __init__(self, program: list[str], command: str, settings: dict[str, str], log: Path) -> None:
        self._program = program
        self._command = command
        self._settings = settings
        self._log = log

    def __enter__(self) -> Program:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._program, self._command],
                env={**clean_environment(), **self._settings},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Until the program's log holds text; ends the benchmark where it does not come."""
        if (
            not wait_until(lambda: text in self.log or self._process.poll() is not None, seconds)
            or text not in self.log
        ):
            sys.exit("%s never said %r:\n%s" % (self._command, text, self.log))


def repeat(source: Path, target: Path, times: int) -> None:
    """A file that holds another one so many times."""
    data = source.read_bytes()
    with target.open("wb") as file:
        for _turn in range(times):
            file.write(data)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def archive_files(archive: Path) -> list[Path]:
    """The hosts' files of an archive, without its ledger, in the order of their names."""
    return sorted(
        path for host in archive.iterdir() if host.name != LEDGER_FOLDER for path in host.rglob("*") if path.is_file()
    )


def archive_size(archive: Path) -> int:
    """The bytes of all hosts' files of an archive."""
    return sum(path.stat().st_size for path in archive_files(archive))


def is_copied(source: Path, archive: Path) -> bool:
    """Whether the archive is one file that equals the source."""
    files = archive_files(archive)
    return len(files) == 1 and filecmp.cmp(source, files[0], shallow=False)


def wait_for_archive(archive: Path, size: int) -> tuple[float, int]:
    """When the archive last grew and its size then: waits until it has so many bytes, or for what is lost in vain."""
    grown, arrived = time.monotonic(), 0

    def done() -> bool:
        nonlocal grown, arrived
        now = archive_size(archive)
        if now != arrived:
            grown, arrived = time.monotonic(), now
        return arrived >= size or time.monotonic() - grown > QUIET_SECONDS

    wait_until(done, 300)
    return grown, arrived


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process."""
    fields = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_megabytes(pid: int, kind: str = "VmRSS") -> float:
    """Memory of a running process that is in RAM, shared pages included; VmHWM is the most that it ever was."""
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise ValueError("no %s of process %d" % (kind, pid))


def durable_server(folder: Path, sync: str = SYNC) -> NatsServer:
    """A nats-server with JetStream, to be started."""
    store = 'jetstream { store_dir: "%s", sync_interval: %s, max_file_store: 8GB }\n'
    return NatsServer(folder / "nats", store % (folder / "nats" / "jetstream", sync))


def durable_settings(server: NatsServer, folder: Path, source: Path) -> tuple[dict[str, str], dict[str, str]]:
    """A producer's and a consumer's settings, in durable mode and without partitions."""
    common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": STREAM.rpartition("-")[0]}
    producer = {
        **common,
        "SHIPPER_FILE": str(source),
        "SHIPPER_STATE": str(folder / "state"),
        "HOSTNAME": HOST,
    }
    archive = folder / "archive"
    archive.mkdir(exist_ok=True)
    consumer = {**common, "SHIPPER_DIRECTORY": str(archive), "SHIPPER_OUTPUT": "{source}-%Y", "SHIPPER_ROTATE": "52w"}
    return producer, {**consumer, "SHIPPER_GROUP": GROUP}


def make_streams(program: list[str], settings: dict[str, str], max_bytes: str) -> None:
    """Make the stream, with the program itself."""
    subprocess.run(
        [*program, "streams"],
        env={**clean_environment(), **settings, "SHIPPER_STREAM_MAX_BYTES": max_bytes},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def ask(server: NatsServer, question: Callable[[JetStream], Awaitable[_Result]]) -> _Result:
    """Ask the broker, as an admin would."""

    async def asking() -> _Result:
        settings = broker_settings({"NATS_URL": server.url})
        async with connected(settings, "bench", ADMIN_INBOX) as link:
            return await question(JetStream(link))

    return asyncio.run(asking())


def wait_for_stream(server: NatsServer, size: int, seconds: float = 300.0) -> tuple[float, float]:
    """When the stream got its first and its last message: waits until it has so many bytes of the file, which are
    acknowledged by then, but for the way of one answer. Ends the benchmark where they do not come."""

    async def watch(js: JetStream) -> tuple[float, float]:
        first = last = 0.0
        messages, stored = 0, 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = (await js.stream_info(STREAM))["state"]
            now = time.monotonic()
            if int(state["messages"]) != messages:
                messages, last = int(state["messages"]), now
                first = first or now
            elif messages and now - last > 0.1:
                # It stands still: is that the end? Not asked more often, for the answer is half a MiB.
                newest = await js.last_message(STREAM, SUBJECT)
                stored = int(newest.headers[END]) if newest is not None else 0
                if stored >= size:
                    return first, last
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.005)
        sys.exit("the stream has %d of %d bytes" % (stored, size))

    return ask(server, watch)


def wait_for_commit(server: NatsServer, seconds: float = 300.0) -> float:
    """When the group had committed all that the stream has. Ends the benchmark where that does not come."""

    async def watch(js: JetStream) -> float:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            info = await js.consumer_info(STREAM, GROUP)
            if not info["num_pending"] and not info["num_ack_pending"]:
                return time.monotonic()
            await asyncio.sleep(0.02)
        sys.exit("not all is committed: %d messages are left" % (info["num_pending"] + info["num_ack_pending"]))

    return ask(server, watch)


@dataclass
class Figure:
    """What moving some bytes took: seconds, CPU seconds of each process, and whether what arrived is what was sent."""

    seconds: float
    size: int
    cpu: dict[str, float]
    whole: bool

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.size / self.seconds / MEGABYTE

    def cpu_per_gigabyte(self, process: str) -> float:
        """CPU seconds."""
        return self.cpu[process] / self.size * 1e9


def kept(promise: bool) -> str:
    """What to print behind a figure that was promised."""
    return "kept" if promise else "MISSED"
