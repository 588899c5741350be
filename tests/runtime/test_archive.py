# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's files: where they go, what they survive, and when they end."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime import confined as confined_module
from shipper_runtime.archive import Archive, descriptor_budget, sweep
from shipper_runtime.confined import check_directory
from shipper_runtime.errors import SettingError
from shipper_runtime.output import parse_output
from tests.support import ROOT


class Opened:
    """An archive, the errors it gave up on, and a clock."""

    def __init__(self, directory: Path, descriptors: int | None) -> None:
        self.given_up: list[tuple[str, str, int, int | None]] = []
        self.archive = Archive(str(directory), self._unwritten, descriptors)
        self.now = 100.0

    def _unwritten(self, host: str, path: str, size: int, error: OSError) -> None:
        self.given_up.append((host, path, size, error.errno))

    def write(self, host: str, name: bytes, *chunks: bytes) -> OSError | None:
        for chunk in chunks:
            self.archive.append(host, name, chunk)
        return self.archive.flush(self.now)


@contextmanager
def opened(directory: Path, descriptors: int | None = None) -> Iterator[Opened]:
    it = Opened(directory, descriptors)
    with closing(it.archive):
        yield it
        assert not it.archive.in_hand or it.archive.flush(it.now) is not None


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_appended_is_in_the_hosts_file_after_a_flush(tmp_path: Path) -> None:
    with opened(tmp_path / "archive") as it:
        it.write("web1", b"log", b"a\n", b"\0\r\n", b"\xff\n")
        it.write("web1", b"log", b"b\n")
        it.write("web2", b"var/log/x", b"c\n")
        assert (tmp_path / "archive/web1/log").read_bytes() == b"a\n\0\r\n\xff\nb\n"
        assert (tmp_path / "archive/web2/var/log/x").read_bytes() == b"c\n"
        assert it.archive.written == 11


def test_a_file_that_is_there_is_continued_and_only_a_new_one_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for text in (b"a\n", b"b\n"):
        with opened(tmp_path) as it:
            it.write("web1", b"sub/log", text)
    assert (tmp_path / "web1/sub/log").read_bytes() == b"a\nb\n"
    assert caplog.messages == ['Creating new log "%s/web1/sub/log"' % tmp_path]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folders_are_0750_and_files_0640_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(tmp_path / "archive") as it:
            it.write("web1", b"sub/log", b"a\n")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "archive").rglob("*")}
    assert modes == {"web1": 0o750, "sub": 0o750, "log": 0o640}
    assert stat.S_IMODE((tmp_path / "archive").stat().st_mode) == 0o750


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_setgid_folder_hands_its_group_down(tmp_path: Path, umask: int) -> None:
    (tmp_path / "archive").mkdir()
    groups = [group for group in (*os.getgroups(), 4) if group != os.getgid()] if os.getuid() == 0 else [os.getgid()]
    os.chown(tmp_path / "archive", -1, groups[0])
    os.chmod(tmp_path / "archive", 0o2750)
    before = os.umask(umask)
    try:
        with opened(tmp_path / "archive") as it:
            it.write("web1", b"sub/log", b"a\n")
    finally:
        os.umask(before)
    for name, mode in (("web1", 0o2750), ("web1/sub", 0o2750), ("web1/sub/log", 0o640)):
        status = (tmp_path / "archive" / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, groups[0])


def test_no_symbolic_link_below_the_directory_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"")
    root = tmp_path / "archive"
    (root / "web2").mkdir(parents=True)
    (root / "web1").symlink_to(outside)
    (root / "web2/sub").symlink_to(outside)
    (root / "web2/log").symlink_to(outside / "file")
    (root / "web2/new").symlink_to(outside / "new")
    with opened(root) as it:
        for host, name in (("web1", b"log"), ("web2", b"sub/log"), ("web2", b"log"), ("web2", b"new")):
            assert it.write(host, name, b"a\n") is None
        assert [entry[0] for entry in it.given_up] == ["web1", "web2", "web2", "web2"]
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b""


def test_the_directory_itself_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "archive").symlink_to("real")
    with opened(tmp_path / "archive") as it:
        it.write("web1", b"log", b"a\n")
    assert (tmp_path / "real/web1/log").read_bytes() == b"a\n"


def test_a_file_that_cannot_be_written_costs_only_its_own_messages(tmp_path: Path) -> None:
    (tmp_path / "web1/log").mkdir(parents=True)
    (tmp_path / "web2").write_bytes(b"")
    (tmp_path / "web3").mkdir()
    os.mkfifo(tmp_path / "web3/log")
    (tmp_path / "web4").mkdir()
    (tmp_path / "web4/log").symlink_to("/dev/null")
    with opened(tmp_path) as it:
        for host in ("web1", "web2", "web3", "web4", "web5"):
            it.archive.append(host, b"log", b"12345\n")
        assert it.archive.flush(0.0) is None
        assert it.archive.in_hand == 0
        given_up = {host: (path, size, error) for host, path, size, error in it.given_up}
        assert given_up["web1"] == ("%s/web1/log" % tmp_path, 6, errno.EISDIR)
        assert given_up["web2"][2] == errno.ENOTDIR
        assert given_up["web3"][2] == errno.ENXIO
        assert given_up["web4"][2] == errno.ELOOP
        assert set(given_up) == {"web1", "web2", "web3", "web4"}
        assert (tmp_path / "web5/log").read_bytes() == b"12345\n"
        (tmp_path / "web1/log").rmdir()
        it.write("web1", b"log", b"later\n")
        assert (tmp_path / "web1/log").read_bytes() == b"later\n"


def test_more_hosts_than_descriptors_are_written_in_order(tmp_path: Path) -> None:
    before = open_descriptors()
    with opened(tmp_path, descriptors=5) as it:
        for number in range(3):
            for host in range(40):
                it.archive.append("web%d" % host, b"log", b"%d\n" % number)
            it.archive.flush(float(number))
            assert open_descriptors() <= before + 6
        for host in range(40):
            assert (tmp_path / ("web%d" % host) / "log").read_bytes() == b"0\n1\n2\n"
    assert open_descriptors() == before


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=3), st.booleans()), max_size=40))
def test_whatever_is_appended_and_flushed_in_between_each_file_has_its_bytes_in_order(
    appends: list[tuple[int, bytes, bool]],
) -> None:
    expected: dict[int, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), descriptors=2) as it:
        for number, data, flush in appends:
            it.archive.append("web%d" % (number % 3), b"log%d" % number, data)
            expected[number] = expected.get(number, b"") + data
            if flush:
                assert it.archive.flush(it.now) is None
                assert it.archive.in_hand == 0
        it.archive.flush(it.now)
        for number, data in expected.items():
            assert Path(folder, "web%d" % (number % 3), "log%d" % number).read_bytes() == data
        assert it.archive.written == sum(map(len, expected.values()))


def test_when_descriptors_run_out_all_the_same_others_are_closed(tmp_path: Path) -> None:
    with opened(tmp_path, descriptors=1000) as it:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 8, hard))
        try:
            for host in range(40):
                assert it.write("web%d" % host, b"log", b"x\n") is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert it.given_up == []
    assert len(list(tmp_path.glob("web*/log"))) == 40


def test_the_descriptor_budget_leaves_room_for_others() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert descriptor_budget() == 136
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        assert descriptor_budget() == 16
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("how", ["removed", "moved", "folder removed", "root removed"])
def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path, how: str) -> None:
    root = tmp_path / "archive"
    with opened(root) as it:
        it.write("web1", b"log", b"a\n")
        if how == "removed":
            (root / "web1/log").unlink()
        elif how == "moved":
            (root / "web1/log").rename(tmp_path / "moved")
        else:
            (root / "web1/log").unlink()
            (root / "web1").rmdir()
            if how == "root removed":
                root.rmdir()
        it.now += 2.0
        it.write("web1", b"log", b"b\n")
        assert (root / "web1/log").read_bytes() == b"b\n"
        if how == "moved":
            assert (tmp_path / "moved").read_bytes() == b"a\n"


def test_a_file_that_is_idle_is_closed_and_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        before = open_descriptors()
        it.write("web1", b"log", b"a\n")
        it.now += 30
        it.write("web2", b"log", b"a\n")
        it.archive.close_idle(it.now + 31)
        assert open_descriptors() == before + 1
        it.archive.close_idle(it.now + 61)
        assert open_descriptors() == before
        it.write("web1", b"log", b"b\n")
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\n"


def test_on_a_full_disk_nothing_is_torn_and_nothing_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own short write and error are had from the limit on a file's size, told as a full disk."""
    write = os.write

    def full(fd: int, data: bytes) -> int:
        try:
            return write(fd, data)
        except OSError as error:
            raise OSError(errno.ENOSPC if error.errno == errno.EFBIG else error.errno, error.strerror) from None

    monkeypatch.setattr(os, "write", full)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"0123456\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, hard))
        try:
            error = it.write("web1", b"log", b"abcdefg\n")
            assert error is not None and error.errno == errno.ENOSPC
            assert (tmp_path / "web1/log").read_bytes() == b"0123456\n"
            assert it.write("web1", b"log", b"h\n") is not None
            assert it.archive.in_hand > 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert it.write("web2", b"log", b"x\n") is None
        assert (tmp_path / "web1/log").read_bytes() == b"0123456\nabcdefg\nh\n"
        assert it.archive.in_hand == 0
        assert it.given_up == []


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_on_a_real_full_disk_nothing_is_torn_and_nothing_lost(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with opened(tmp_path) as it:
            it.write("web1", b"log", b"first\n")
            filler = tmp_path / "filler"
            filler.write_bytes(bytes(900 * 1024))
            error = it.write("web1", b"log", b"x" * 300 * 1024 + b"\n")
            assert error is not None and error.errno == errno.ENOSPC
            assert (tmp_path / "web1/log").read_bytes() == b"first\n"
            filler.unlink()
            assert it.write("web1", b"log", b"last\n") is None
            assert (tmp_path / "web1/log").read_bytes() == b"first\n" + b"x" * 300 * 1024 + b"\nlast\n"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("what", ["file", "below a file", "dangling link"])
def test_a_directory_that_cannot_be_one_is_refused_with_a_remedy(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    path = {"file": "file", "below a file": "file/archive", "dangling link": "link"}[what]
    for act in (check_directory, lambda directory: Archive(directory, lambda *_: None)):
        with pytest.raises(SettingError, match=r"SHIPPER_DIRECTORY=.*: it ") as refused:
            act(str(tmp_path / path))
        assert "\n" not in str(refused.value)


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    check_directory(str(tmp_path / "a/b/c"))
    check_directory(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_this_user_cannot_write_is_refused() -> None:
    script = """
import os
from shipper_runtime.archive import Archive
from shipper_runtime.confined import check_directory
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for act in (check_directory, lambda directory: Archive(directory, print)):
    try:
        act("/usr/archive")
    except Exception as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("SHIPPER_DIRECTORY=/usr/archive: it cannot be made, because /usr is not writable for this")
    assert second.startswith("SHIPPER_DIRECTORY=/usr/archive: it cannot be made or opened: ")


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def left(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_a_sweep_removes_the_old_files_of_every_host_and_nothing_else(tmp_path: Path) -> None:
    output = parse_output("messages-%Y%m%d", 86400)
    make(tmp_path, "web1/messages-20240101", "web1/messages-20240102", "silent/messages-20240101")
    foreign = {"web1/messages-20240101.gz", "web1/notes", "web1/sub/messages-20240101", "messages-20240101"}
    foreign |= {".shipper/messages-20240101", "not a host/messages-20240101"}
    make(tmp_path, *foreign)
    (tmp_path / "web1/messages-20231231").symlink_to("notes")
    (tmp_path / "linked").symlink_to("web1")
    cutoff = output.period(1704153600)
    swept = sweep(str(tmp_path), lambda name: output.is_older(name, cutoff), lambda: False)
    assert (swept.files, swept.bytes, swept.errors) == (2, 2, [])
    assert left(tmp_path) == foreign | {"web1/messages-20240102", "web1/messages-20231231", "linked"}
    assert (tmp_path / "silent").is_dir()


def test_a_sweep_removes_the_folders_that_it_emptied_below_the_hosts(tmp_path: Path) -> None:
    output = parse_output("%Y/%m/%d/{source}", 86400)
    make(tmp_path, "web1/2024/01/01/var/log/a", "web1/2024/01/02/var/log/a", "web2/2023/12/31/b")
    (tmp_path / "web1/2023/empty").mkdir(parents=True)
    cutoff = output.period(1704153600)
    sweep(str(tmp_path), lambda name: output.is_older(name, cutoff), lambda: False)
    assert left(tmp_path) == {"web1/2024/01/02/var/log/a"}
    folders = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")} | {
        path.name for path in tmp_path.iterdir()
    }
    assert folders == {"web1", "web1/2024", "web1/2023", "web2"}
    assert not (tmp_path / "web1/2024/01/01").exists()


def test_a_sweep_survives_what_it_cannot_remove_and_a_stop(tmp_path: Path) -> None:
    make(tmp_path, "web1/log")
    assert sweep(str(tmp_path), lambda name: True, lambda: True).files == 0
    assert sweep(str(tmp_path / "missing"), lambda name: True, lambda: False).errors == []
    assert left(tmp_path) == {"web1/log"}


def test_a_folder_that_a_sweep_removes_under_the_writer_is_made_again(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        enter = confined_module._enter
        calls: list[bytes] = []

        def enter_and_lose(name: bytes, parent: int) -> int:
            folder = enter(name, parent)
            if not calls:
                calls.append(name)
                (tmp_path / "web1").rmdir()
            return folder

        confined_module._enter = enter_and_lose
        try:
            assert it.write("web1", b"log", b"a\n") is None
        finally:
            confined_module._enter = enter
        assert it.given_up == []
        assert (tmp_path / "web1/log").read_bytes() == b"a\n"
