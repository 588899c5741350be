# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' own checker: the one in PATH, or the one of Debian's package, unpacked below .cache.

Nothing is installed and no root is needed: apt has its lists and its download in a folder of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache" / "promtool"
APT_SECONDS = 300


class NoPromtool(Exception):
    """Why promtool cannot be had: one line."""


def promtool() -> Path:
    """The program's path. Raises NoPromtool."""
    found = shutil.which("promtool")
    if found is not None:
        return Path(found)
    program = PLACE / "usr" / "bin" / "promtool"
    if not program.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise NoPromtool("no promtool in PATH, and no apt-get to fetch it with: install Prometheus")
        _unpack(program)
    return program


def _unpack(program: Path) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as name:
        folder = Path(name)
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (folder / needed).mkdir(parents=True)
        apt = ["apt-get", "-qq"]
        for option, value in (
            ("Dir::State", folder / "state"),
            ("Dir::State::status", "/var/lib/dpkg/status"),
            ("Dir::Cache", folder / "cache"),
            ("APT::Sandbox::User", "root"),
        ):
            apt += ["-o", "%s=%s" % (option, value)]
        _run([*apt, "update"], folder)
        _run([*apt, "download", "prometheus"], folder)
        (package,) = folder.glob("prometheus_*.deb")
        _run(["dpkg-deb", "--extract", str(package), str(folder / "package")], folder)
        program.parent.mkdir(parents=True, exist_ok=True)
        (folder / "package" / "usr" / "bin" / "promtool").replace(program)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoPromtool("no promtool in PATH, and %s took longer than %d s" % (command[0], APT_SECONDS)) from None
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["exit code %d" % done.returncode])[-1]
        raise NoPromtool("no promtool in PATH, and %s cannot fetch it: %s" % (command[0], last))
