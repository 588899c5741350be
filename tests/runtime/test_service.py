# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shipper_runtime.service import Rarely, Service
from tests.support import Shipper, wait_for


def test_what_stays_is_said_once_and_what_is_new_at_once() -> None:
    said: list[str] = []
    rarely = Rarely(lambda message, text: said.append(text))
    for _turn in range(3):
        rarely("no answer from %s", "a")
        rarely("no answer from %s", "b")
    assert said == ["no answer from a", "no answer from b"]
    rarely.forget()
    rarely("no answer from %s", "a")
    assert len(said) == 3


def test_systemd_is_told_ready_once_status_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "20000000")

        async def main() -> None:
            service = Service()
            service.ready("connecting")
            service.ready("publishing")
            service.progress()
            service.progress()
            service.stopped()

        asyncio.run(main())
        told = [listener.recv(1000).decode() for _turn in range(4)]
        with pytest.raises(BlockingIOError):
            listener.recv(1000)
    assert told == ["READY=1\nSTATUS=connecting", "STATUS=publishing", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("journal", [True, False])
def test_a_time_stands_in_front_only_where_stderr_is_not_the_journal(tmp_path: Path, journal: bool) -> None:
    code = "from shipper_runtime.service import start_logging; import logging; start_logging(); logging.error('x\\ny')"
    with open(tmp_path / "stderr", "wb") as stderr:
        status = os.fstat(stderr.fileno())
        stream = "%d:%d" % (status.st_dev, status.st_ino) if journal else "1:2"
        env = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", code], env=env, stderr=stderr, check=True, cwd=Path(__file__).parents[2])
    text = (tmp_path / "stderr").read_text()
    assert text == "<3>x\n<3>y\n" if journal else text.endswith(" x\ny\n") and text.startswith("20")


def service(tmp_path: Path) -> Shipper:
    """A producer that has nobody to connect to."""
    env = {"NATS_URL": "127.0.0.1:1", "SHIPPER_SUBJECT": "shipper", "HOSTNAME": "web1"}
    files = {"SHIPPER_FILE": str(tmp_path / "log"), "SHIPPER_STATE": str(tmp_path / "state")}
    return Shipper("producer", {**env, **files}, tmp_path / "producer.log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_stop_in_good_order_from_the_first_moment_on(tmp_path: Path, number: int) -> None:
    program = service(tmp_path)
    # It names what it has loaded: this is among the first.
    program._arguments[1:1] = ["-X", "importtime"]
    with program:
        program.wait_for_log("argparse")
        assert program.stop(number) == 0
    program.log_path.unlink()
    with service(tmp_path) as program:
        program.wait_for_log("Cannot connect")
        assert program.stop(number) == 0


def test_signals_that_come_again_and_again_change_nothing(tmp_path: Path) -> None:
    with service(tmp_path) as program:
        program.wait_for_log("Cannot connect")
        assert program.process is not None
        while program.process.poll() is None:
            program.send(signal.SIGTERM)
            time.sleep(0.001)
        assert program.process.returncode == 0


def test_a_log_that_cannot_be_written_does_not_change_how_it_ends(tmp_path: Path) -> None:
    (tmp_path / "producer.log").symlink_to("/dev/full")
    with service(tmp_path) as program:
        wait_for((tmp_path / "state" / "lock").exists)
        assert program.stop() == 0


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    """As nohup has it."""
    program = service(tmp_path)
    program._arguments[:0] = ["nohup"]
    with program:
        program.wait_for_log("Cannot connect")
        program.send(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            assert program.process is not None
            program.process.wait(1)
        assert program.stop() == 0
