# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the one file that runs on hosts: this package and the nats-py of the Python that runs this.

    python3 bundle.py           puts it into the user's cache and prints its path, version and hash as JSON
    python3 bundle.py FOLDER    puts it into FOLDER

The same input gives the same bytes, whoever builds it, where and when. The file's name is its version, in a folder
that is named by its hash, so that runs with different input do not get into each other's way.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# The release whose protocol code natsfix mends.
NATS_PY_OLDEST = (2, 16)
# What only the controller uses.
CONTROLLER_ONLY = (
    "assignment.py",
    "bundle.py",
    "change.py",
    "fleet.py",
    "identities.py",
    "page.py",
    "report.py",
    "values.py",
)

_PACKAGE = Path(__file__).resolve().parent
_SHEBANG = b"#!/usr/bin/env python3\n"
# In words that any Python understands: an old one must get as far as the sentence.
_MAIN = b"""\
import sys

if sys.version_info < (3, 9):
    sys.stderr.write("shipper: Python %d.%d is too old: use 3.9 or newer\\n" % sys.version_info[:2])
    sys.exit(2)

import shipper_runtime.__main__
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644


class BundleError(Exception):
    """Why there is no bundle: one line with the remedy."""


def build() -> bytes:
    """The bundle: an executable zip file. Raises BundleError."""
    files = {"__main__.py": _MAIN}
    files.update(_runtime_files())
    files.update(_nats_files())
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = _REGULAR_FILE << 16
            bundle.writestr(entry, files[name], compresslevel=9)
    return buffer.getvalue()


def _runtime_files() -> Iterator[tuple[str, bytes]]:
    for path in _PACKAGE.glob("*.py"):
        if path.name not in CONTROLLER_ONLY:
            yield "shipper_runtime/" + path.name, path.read_bytes()


def _nats_files() -> Iterator[tuple[str, bytes]]:
    """nats-py and its licence. Raises BundleError."""
    remedy = "install it there: %s -m pip install 'nats-py>=%d.%d'" % (sys.executable, *NATS_PY_OLDEST)
    spec = importlib.util.find_spec("nats")
    try:
        distribution = importlib.metadata.distribution("nats-py")
    except importlib.metadata.PackageNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BundleError("%s has no nats-py: %s" % (sys.executable, remedy))
    version = distribution.version
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < NATS_PY_OLDEST:
        raise BundleError("the nats-py of %s is %s, which is too old: %s" % (sys.executable, version, remedy))
    folder = Path(spec.submodule_search_locations[0])
    for path in folder.rglob("*.py"):
        yield "nats/" + path.relative_to(folder).as_posix(), path.read_bytes()
    info = "nats_py-%s.dist-info/" % version
    for file in distribution.files or ():
        name = PurePosixPath(file).name
        if name.startswith(("LICENSE", "NOTICE")):
            yield info + name, file.read_binary()


def store(bundle: bytes, folder: Path) -> Path:
    """Puts the bundle below folder, whole or not at all, and returns its path."""
    path = folder / hashlib.sha256(bundle).hexdigest()[:16] / version()
    if not path.exists() or path.read_bytes() != bundle:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(bundle)
        os.replace(name, path)
    return path


def version() -> str:
    """The runtime's version, read rather than imported: this file runs as a program, outside of its package."""
    match = re.search(r'^__version__ = "(.+)"$', (_PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise BundleError("%s names no version" % (_PACKAGE / "__init__.py"))
    return match.group(1)


def main(arguments: list[str]) -> int:
    """Builds the bundle into the folder that is named, or the user's cache, and says where it is."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(*arguments[:1]) if arguments else cache / "logfleet.shipper"
    try:
        bundle = build()
        path = store(bundle, folder)
        answer = {"path": str(path), "version": version(), "sha256": hashlib.sha256(bundle).hexdigest()}
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print("the program cannot be built in %s: %s" % (folder, error), file=sys.stderr)
        return 2
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
