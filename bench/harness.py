# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: deterministic lines, our programs as processes, and what they cost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support import clean_environment  # noqa: E402  # the folder above is not on the path before

LINES = 1_500_000
BLOCK = 512 * 1024
MEGABYTE = 1_000_000
QUIET_SECONDS = 5.0

_TICKS = os.sysconf("SC_CLK_TCK")
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


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def archive_size(archive: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in archive.rglob("*") if path.is_file())


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


def resident_megabytes(pid: int) -> float:
    """Memory of a running process that is in RAM, shared pages included."""
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise ValueError("no VmRSS of process %d" % pid)


def tcp_copy_seconds(source: Path, target: Path) -> float:
    """The limit: the file's bytes through one loopback TCP connection into another file, nothing else done to them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def receive() -> None:
        connection, _address = listener.accept()
        with connection, target.open("wb", buffering=0) as file:
            while True:
                block = connection.recv(BLOCK)
                if not block:
                    return
                file.write(block)

    started = time.monotonic()
    receiver = threading.Thread(target=receive)
    receiver.start()
    with socket.create_connection(listener.getsockname()) as connection, source.open("rb", buffering=0) as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                break
            connection.sendall(block)
    receiver.join()
    listener.close()
    return time.monotonic() - started
