# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the Pythons of this machine and keeps one virtual environment for each that the checks want.

Nothing but the standard library, on any Python 3 from 3.7 on: this is what prepares the rest. What an environment was
made from is written into it, so that preparing it again is free until its requirements or its Python change.

    python3 tests/checkers/environments.py      prepares the main environment, .venv
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"

_STAMP = "shipper-stamp"
_INTERPRETER = re.compile(r"python3(\.\d+)?\Z")
_PROBE = "import ensurepip, ssl, sys, venv; print(*sys.version_info[:3])"


class EnvironmentProblem(Exception):
    """Why an environment cannot be had: one line for a developer."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its folder, what goes into it, and the Pythons that will do, best first."""

    folder: str
    requirements: str
    pythons: tuple[tuple[int, int], ...]
    purpose: str


MAIN = Environment(
    ".venv",
    "dev.txt",
    # The ones that the pinned ansible-core supports, then newer ones; 3.10 gets an older ansible-core.
    ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15), (3, 10)),
    "the main environment",
)
OLDEST = Environment(".venvs/py3.9", "tests.txt", ((3, 9),), "the runtime on Python 3.9")
CORE_2_17 = Environment(".venvs/core-2.17", "core-2.17.txt", ((3, 10), (3, 11), (3, 12)), "ansible-core 2.17")
CORE_2_21 = Environment(
    ".venvs/core-2.21",
    "core-2.21.txt",
    ((3, 15), (3, 14), (3, 13), (3, 12)),
    "ansible-core 2.21 and the runtime on the newest Python",
)


def python_folders() -> list[Path]:
    """The folders that may hold interpreters: PATH without pyenv's shims, then pyenv's versions themselves."""
    found = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    found = [folder for folder in found if folder.name != "shims"]
    for pyenv in (os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv")):
        if pyenv:
            # Not pathlib's, which fails where somebody else's home may not be looked into.
            found += [Path(folder) for folder in sorted(glob.glob(os.path.join(pyenv, "versions", "*", "bin")))]
    return list(dict.fromkeys(found))


def find_pythons() -> dict[tuple[int, int], Path]:
    """The newest interpreter of each minor version that can make a virtual environment."""
    found: dict[tuple[int, int], tuple[tuple[int, ...], Path]] = {}
    for folder in python_folders():
        try:
            names = sorted(entry.name for entry in folder.iterdir() if _INTERPRETER.match(entry.name))
        except OSError:
            continue
        for name in names:
            path = folder / name
            version = _version(path)
            if version is not None and (version[:2] not in found or found[version[:2]][0] < version):
                found[(version[0], version[1])] = (version, path)
    return {minor: found[minor][1] for minor in sorted(found)}


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        printed = subprocess.check_output([str(path), "-c", _PROBE], stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(int(number) for number in printed.split())


def ready(environment: Environment) -> Path | None:
    """The environment's folder, if it was prepared from the requirements as they are."""
    folder = ROOT / environment.folder
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text() == _stamp(environment) and (folder / "bin" / "python").exists():
        return folder
    return None


def prepare(environment: Environment, pythons: dict[tuple[int, int], Path]) -> Path:
    """The environment's folder, made or made anew where that is needed. Raises EnvironmentProblem."""
    folder = ROOT / environment.folder
    if ready(environment) is not None:
        return folder
    chosen = next((pythons[version] for version in environment.pythons if version in pythons), None)
    if chosen is None:
        raise EnvironmentProblem(
            "no Python %s with venv and ensurepip in PATH or pyenv (on Debian: apt-get install python3 python3-venv)"
            % " or ".join("%d.%d" % version for version in sorted(environment.pythons))
        )
    print("== preparing %s: %s, with %s" % (environment.folder, environment.purpose, chosen), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    steps = (
        [str(chosen), "-m", "venv", str(folder)],
        [
            *[str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"],
            *["-r", str(REQUIREMENTS / environment.requirements)],
        ],
    )
    for step in steps:
        if subprocess.call(step, stdin=subprocess.DEVNULL) != 0:
            raise EnvironmentProblem("%s could not be prepared: %s failed" % (environment.folder, " ".join(step)))
    (folder / _STAMP).write_text(_stamp(environment))
    return folder


def _stamp(environment: Environment) -> str:
    """Changes when the environment would: with its requirements, and the folder it was made in."""
    digest = hashlib.sha256()
    for path in sorted(REQUIREMENTS.glob("*.txt")):
        digest.update(path.read_bytes())
    return "%s %s %s\n" % (ROOT, environment.requirements, digest.hexdigest())


if __name__ == "__main__":
    try:
        if ready(MAIN) is None:
            prepare(MAIN, find_pythons())
    except EnvironmentProblem as problem:
        sys.exit(str(problem))
