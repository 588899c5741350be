# SPDX-License-Identifier: GPL-3.0-or-later
"""rsyslog as a peer: imfile on one side, omfile with a file a host on the other, TCP or RELP between them.

Debian's packages are unpacked, not installed, so that nothing of this machine changes. Tuned as its documentation says:
large batches and queues, no sync and no flush after each line, ruleset queues of their own, RELP's window at 10,000.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import ROOT, Figure, cpu_seconds, is_copied, wait_for_archive, wait_until

PACKAGES = ("rsyslog", "rsyslog-relp", "librelp0", "libestr0", "libfastjson4")
PLACE = ROOT / ".cache" / "rsyslog"

_GLOBAL = """
global(workDirectory="%(work)s" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="4096")
"""
# A line is put behind a short header, as syslog does it, and comes out of it as it was.
_SENDER = """
module(load="imfile" mode="inotify")
%(module)s
template(name="wire" type="string" string="<13>1 - web1.example.net app - - - %%msg%%\\n")
ruleset(name="ship" queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="4096") {
  action(%(action)s template="wire" action.resumeRetryCount="-1")
}
input(type="imfile" file="%(source)s" tag="app" ruleset="ship" maxLinesAtOnce="0" maxSubmitAtOnce="4096")
"""
_RECEIVER = """
%(module)s
template(name="line" type="string" string="%%msg%%\\n")
template(name="path" type="string" string="%(archive)s/%%hostname%%/app.log")
ruleset(name="keep" queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="4096") {
  action(type="omfile" dynaFile="path" template="line" ioBufferSize="256k" flushOnTXEnd="off" flushInterval="1"
         asyncWriting="on" dynaFileCacheSize="1000" createDirs="on")
}
%(input)s
"""
_TRANSPORTS = {
    "TCP": (
        "",
        'type="omfwd" target="127.0.0.1" port="%(port)d" protocol="tcp" tcp_framing="octet-counted"',
        'module(load="imptcp" threads="2")',
        'input(type="imptcp" address="127.0.0.1" port="%(port)d" ruleset="keep")',
    ),
    "RELP": (
        'module(load="omrelp")',
        'type="omrelp" target="127.0.0.1" port="%(port)d" windowSize="10000"',
        'module(load="imrelp" ruleset="keep")',
        'input(type="imrelp" address="127.0.0.1" port="%(port)d" maxDataSize="64k")',
    ),
}


def install() -> str:
    """Unpack the packages where they are not yet; rsyslog's version."""
    program = PLACE / "usr/sbin/rsyslogd"
    if not program.exists():
        with tempfile.TemporaryDirectory() as folder:
            PLACE.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["apt-get", "-q", "download", *PACKAGES],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for package in sorted(Path(folder).glob("*.deb")):
                subprocess.run(["dpkg", "-x", str(package), str(PLACE)], check=True)
    printed = subprocess.run([program, "-v"], env=_environment(), stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return printed.stdout.split()[1]


def ship(folder: Path, source: Path, transport: str) -> Figure:
    """The file through two rsyslogds."""
    sending, action, receiving, listening = _TRANSPORTS[transport]
    archive = folder / "archive"
    archive.mkdir(parents=True)
    port = {"port": _free_port()}
    receiver = _RECEIVER % {"module": receiving, "archive": archive, "input": listening % port}
    sender = _SENDER % {"module": sending, "action": action % port, "source": source}
    size = source.stat().st_size
    with _running(folder / "receiver", receiver) as keeping:
        wait_until(lambda: _listens(port["port"]), 20)
        with _running(folder / "sender", sender) as shipping:
            wait_until(lambda: any(path.stat().st_size for path in archive.rglob("*.log")), 60)
            began = time.monotonic()
            finished, arrived = wait_for_archive(archive, size)
            spent = {"sender": cpu_seconds(shipping), "receiver": cpu_seconds(keeping)}
    return Figure(finished - began, arrived, spent, is_copied(source, archive))


@contextlib.contextmanager
def _running(folder: Path, config: str) -> Iterator[int]:
    folder.mkdir()
    path = folder / "rsyslog.conf"
    path.write_text(_GLOBAL % {"work": folder} + config)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                *(PLACE / "usr/sbin/rsyslogd", "-n", "-f", path, "-i", folder / "pid"),
                *("-M", PLACE / "usr/lib" / _triplet() / "rsyslog"),
            ],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(PLACE / "usr/lib" / _triplet())}


def _triplet() -> str:
    return next(path.name for path in (PLACE / "usr/lib").iterdir() if path.name.endswith("-linux-gnu"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
