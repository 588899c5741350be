# SPDX-License-Identifier: GPL-3.0-or-later
"""What the applications of the lab wrote against what the archives hold, byte for byte.

    compare.py SECONDS PRODUCER,PRODUCER... ARCHIVE,ARCHIVE... [gzip]

What had been written when it begins must be in the archive within so many seconds, each source's archive files in the
order of their names; what is in the archive must have been written, in this order. It may run while more is written;
when nothing is, it compares all. With gzip all files must be compressed, without it none. Prints a line for each
source, at last how the first wrong one differs.
"""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

TRUTH = "/var/lib/traffic"
LOGS = "var/log/app"
ARCHIVE = "/srv/archive"
# What shipper_output puts behind a source: %Y%m%d%H%M; and what is put behind that where files are compressed.
_NAME = re.compile(r"\./([^/]+)/%s/(.+)-[0-9]{12}(\.gz)?\Z" % LOGS)

Source = tuple[str, str]


def _words() -> ModuleType:
    """What the test that compares the most has to read files and to say how they differ."""
    path = Path(__file__).resolve().parents[2] / "tests" / "torture" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_bytes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_WORDS = _words()


def read_folder(host: str, folder: str) -> dict[str, bytes]:
    """The files below a folder of a host by their path below it."""
    # tar ends with 1 where a file grew while it was read.
    done = subprocess.run(
        ["podman", "exec", host, "tar", "--create", "--directory", folder, "--exclude=.shipper", "."],
        capture_output=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit("%s cannot be read on %s: %s" % (folder, host, done.stderr.decode(errors="replace").strip()))
    found = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def read_truth(producers: list[str]) -> dict[Source, bytes]:
    """What was written, by host and file."""
    return {(host, name[2:]): data for host in producers for name, data in read_folder(host, TRUTH).items()}


def read_archives(archives: list[str], packed: bool) -> dict[Source, bytes]:
    """What was archived, by host and file; a source that is in two archives is a mistake."""
    found: dict[Source, dict[str, bytes]] = {}
    places: dict[Source, str] = {}
    for archive in archives:
        for name, data in read_folder(archive, ARCHIVE).items():
            match = _NAME.match(name)
            if match is None or bool(match.group(3)) != packed:
                raise SystemExit("%s has a file that nobody ships: %s" % (archive, name))
            source = (match.group(1), match.group(2))
            if places.setdefault(source, archive) != archive:
                raise SystemExit("%s of %s is on %s and %s" % (source[1], source[0], places[source], archive))
            found.setdefault(source, {})[name] = _WORDS.unpacked(data)[0] if packed else data
    return {source: b"".join(files[name] for name in sorted(files)) for source, files in found.items()}


def compare(seconds: float, producers: list[str], archives: list[str], packed: bool) -> int:
    wanted = {source: len(data) for source, data in read_truth(producers).items()}
    if not wanted:
        print("nothing was written on %s" % ", ".join(producers))
        return 1
    deadline = time.monotonic() + seconds
    while True:
        got = read_archives(archives, packed)
        late = sorted(source for source, length in wanted.items() if len(got.get(source, b"")) < length)
        if not late or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    written = read_truth(producers)
    problems = ["%s has %s, which nobody wrote" % source for source in sorted(set(got) - set(written))]
    for (host, name), length in sorted(wanted.items()):
        found = got.get((host, name), b"")
        right = written[host, name].startswith(found)
        word = "WRONG" if not right else "late" if (host, name) in late else "identical"
        print("%-30s %-14s %9d bytes written, %9d archived: %s" % (host, name, length, len(found), word))
        if word != "identical":
            until = len(found) if right else max(length, len(found))
            told = _WORDS.diagnose(written[host, name][:until], found) or "nothing came for %d s" % seconds
            problems.append("%s of %s: %s" % (name, host, told))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def main(seconds: str, producers: str, archives: str, compress: str = "none") -> int:
    return compare(float(seconds), producers.split(","), archives.split(","), compress != "none")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
