# SPDX-License-Identifier: GPL-3.0-or-later
"""The one file that runs on hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shipper_runtime import __version__, bundle

SCRIPT = Path(bundle.__file__)


def build(folder: Path, **options: object) -> Path:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], stdout=subprocess.PIPE, encoding="utf-8", check=True, **options
    )
    answer = json.loads(done.stdout)
    assert answer["version"] == __version__
    return Path(answer["path"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bundle"))


def test_the_same_input_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Whoever builds it, wherever and whenever: another folder, umask, time zone and order of hashes."""
    copy = tmp_path / "elsewhere" / "shipper_runtime"
    shutil.copytree(SCRIPT.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, str(copy / "bundle.py"), str(tmp_path / "out")],
        cwd=tmp_path,
        env={**os.environ, "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7", "LC_ALL": "C"},
        preexec_fn=lambda: os.umask(0o077) and None,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    other = Path(json.loads(done.stdout)["path"])
    assert other.read_bytes() == built.read_bytes()
    assert other.parent.name == built.parent.name
    assert (built.name, other.name) == (__version__, __version__)


def test_it_is_kept_when_nothing_has_changed_and_made_whole_when_it_was_damaged(tmp_path: Path) -> None:
    path = build(tmp_path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert build(tmp_path) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    assert build(tmp_path) == path
    assert path.read_bytes() == content


def test_it_holds_what_hosts_need_and_nothing_else(built: Path) -> None:
    """The runtime, nats-py with its licence, no byte code, nothing that only the controller uses."""
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "__main__.py",
        "nats",
        "nats_py-2.16.0.dist-info",
        "shipper_runtime",
    }
    assert "nats_py-2.16.0.dist-info/LICENSE" in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("tests")]
    inside = {name for name in names if name.startswith("shipper_runtime/")}
    there = {"shipper_runtime/" + path.name for path in SCRIPT.parent.glob("*.py")}
    assert there - inside == {"shipper_runtime/" + name for name in bundle.CONTROLLER_ONLY}
    assert built.stat().st_size < 300_000


def pythons() -> list[str]:
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if not entry.endswith("shims")]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found = {}
    for minor in range(6, 15):
        name = "python3.%d" % minor
        found[name] = next((str(folder / name) for folder in folders if (folder / name).exists()), None)
    return [path for path in found.values() if path is not None]


@pytest.mark.parametrize("python", pythons())
def test_it_starts_from_3_9_on_and_says_so_on_what_is_older(built: Path, python: str, tmp_path: Path) -> None:
    """With nothing but the standard library, from a read-only file."""
    done = subprocess.run(
        [python, "-I", "-S", "-W", "error", str(built), "--version"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    minor = int(python.rpartition(".")[2])
    if minor >= 9:
        assert (done.returncode, done.stdout, done.stderr) == (0, "shipper %s\n" % __version__, "")
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "shipper: Python 3.%d is too old: use 3.9 or newer\n" % minor


def test_a_python_without_nats_py_is_told_what_to_install(tmp_path: Path) -> None:
    """One line, and no bundle."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(tmp_path / "out")],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "%s has no nats-py: install it there: %s -m pip install 'nats-py>=2.16'\n" % (
        sys.executable,
        sys.executable,
    )
    assert not (tmp_path / "out").exists()


def test_a_nats_py_that_is_too_old_is_named(tmp_path: Path) -> None:
    """With its version, and what to install instead."""
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "__init__.py").touch()
    (tmp_path / "nats_py-2.9.0.dist-info").mkdir()
    (tmp_path / "nats_py-2.9.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: nats-py\nVersion: 2.9.0\n"
    )
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "out")],
        env={"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("the nats-py of %s is 2.9.0, which is too old: " % sys.executable)
