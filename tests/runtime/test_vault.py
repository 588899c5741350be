# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's files in durable mode: what is committed stays, what is not can be taken back."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable

import pytest

from shipper_runtime import vault as vault_module
from shipper_runtime.confined import Root
from shipper_runtime.ledger import FOLDER as LEDGER_FOLDER
from shipper_runtime.ledger import NAME, Commit, FileRow, Ledger, Lost, Position
from shipper_runtime.packing import Packed, pack
from shipper_runtime.vault import CONTESTED_SECONDS, Vault

STREAM, OTHER = "logs-p0", "logs-p1"
# 2100: later than any file here was changed.
LATER = 4102444800 * 10**9


class Partition:
    """A partition's part of an archive, as a reader has it; what it gave up is counted."""

    def __init__(
        self, directory: Path, stream: str = STREAM, descriptors: int = 100, compress: int | None = None
    ) -> None:
        self.stream = stream
        self.sequence = 0
        self.given_up: list[tuple[str, str, int, int | None]] = []
        self.ledger = Ledger(str(directory))
        self.root = Root(str(directory))
        self.vault = Vault(self.root, self.ledger, stream, self._unwritten, descriptors, compress)

    def _unwritten(self, host: str, path: str, size: int, error: OSError) -> None:
        self.given_up.append((host, path, size, error.errno))

    def append(self, host: str, name: bytes, data: bytes | Packed, period: int = 0, stamp: int = 0) -> None:
        self.vault.append(host, name, period, stamp, data)

    def write(self, host: str, name: bytes, *chunks: bytes | Packed, stamp: int = 0) -> None:
        for chunk in chunks:
            self.append(host, name, chunk, stamp=stamp)
        self.vault.flush()

    def commit(self) -> None:
        self.vault.flush()
        self.vault.sync()
        self.sequence += 1
        self.ledger.commit(self.stream, Commit(Position("2024", self.sequence), self.vault.rows()))
        self.vault.settle()

    def begin_epoch(self) -> None:
        self.ledger.begin_epoch(self.stream, Position("2025"), self.vault.tails())

    def close(self) -> None:
        self.vault.close()
        self.root.close()
        self.ledger.close()


@contextlib.contextmanager
def opened(
    directory: Path, stream: str = STREAM, descriptors: int = 100, compress: int | None = None
) -> Iterator[Partition]:
    with contextlib.closing(Partition(directory, stream, descriptors, compress)) as it:
        yield it


def crashed(directory: Path, committed: bytes, uncommitted: bytes = b"", host: str = "web1") -> None:
    """Leave a file behind as a reader does that was killed."""
    with opened(directory) as it:
        if committed:
            it.write(host, b"log", committed)
            it.commit()
        if uncommitted:
            it.write(host, b"log", uncommitted)


def open_logs() -> int:
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink("/proc/self/fd/" + fd))
    return sum(target.endswith("/log") for target in targets)


def lose_ledger(directory: Path) -> None:
    shutil.rmtree(directory / LEDGER_FOLDER)


def test_what_is_flushed_is_readable_at_once_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        it.append("web1", b"log", b"a\n")
        it.append("web1", b"log", b"\0\xff\r\n")
        it.append("web2", b"var/log/x", b"c\n")
        assert list(tmp_path.glob("web*")) == []
        it.vault.flush()
        assert (tmp_path / "web1/log").read_bytes() == b"a\n\0\xff\r\n"
        assert (tmp_path / "web2/var/log/x").read_bytes() == b"c\n"
        assert it.vault.uncommitted == 8
        it.commit()
        assert it.vault.uncommitted == 0


def test_what_is_not_committed_is_cut_off_and_what_is_committed_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\n")
        it.commit()
        it.write("web1", b"log", b"b\n")
        it.write("web2", b"log", b"c\n")
    with opened(tmp_path) as it:
        it.vault.cut_back()
        assert (tmp_path / "web1/log").read_bytes() == b"a\n"
        assert (tmp_path / "web2/log").read_bytes() == b""
        it.write("web1", b"log", b"d\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nd\n"


def test_what_is_not_committed_is_cut_off_also_by_who_writes_the_file_next(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"b\n")
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"c\n")
        assert (tmp_path / "web1/log").read_bytes() == b"a\nc\n"


def test_a_file_is_in_the_ledger_before_its_first_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    pwrite = os.pwrite

    def look(fd: int, data: bytes, offset: int) -> int:
        path = os.path.relpath(os.readlink("/proc/self/fd/%d" % fd), tmp_path).encode()
        with contextlib.closing(Ledger(str(tmp_path))) as ledger:
            assert ledger.file(path) == (STREAM, FileRow(path, 0, 86400))
        written.append(path)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", look)
    with opened(tmp_path) as it:
        for host in ("web1", "web2"):
            it.append(host, b"sub/log", b"a\n", period=86400)
        it.vault.flush()
    assert sorted(written) == [b"web1/sub/log", b"web2/sub/log"]


def test_a_file_that_was_there_is_continued_and_its_bytes_are_never_cut_off(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        (tmp_path / "web1").mkdir()
        (tmp_path / "web1/log").write_bytes(b"core mode's\n")
        it.write("web1", b"log", b"a\n")
    with opened(tmp_path) as it:
        it.vault.cut_back()
        assert (tmp_path / "web1/log").read_bytes() == b"core mode's\n"
        it.write("web1", b"log", b"a\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"core mode's\na\n"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are made to last, in order."""
    paths: list[str] = []

    def note(call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            paths.append(os.readlink("/proc/self/fd/%d" % fd))
            call(fd)

        return sync

    monkeypatch.setattr(os, "fsync", note(os.fsync))
    monkeypatch.setattr(os, "fdatasync", note(os.fdatasync))
    return paths


def names(paths: list[str], root: Path) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in paths)


def test_a_sync_reaches_the_touched_files_and_the_folders_of_new_ones(tmp_path: Path, synced: list[str]) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"var/log", b"a\n")
        it.write("web2", b"log", b"a\n")
        it.commit()
        assert names(synced, tmp_path) == [".", "web1", "web1/var", "web1/var/log", "web2", "web2/log"]
        synced.clear()
        it.write("web1", b"var/log", b"b\n")
        it.commit()
        assert names(synced, tmp_path) == ["web1/var/log"]
        synced.clear()
        it.write("web1", b"var/log2", b"b\n")
        it.commit()
        assert names(synced, tmp_path) == [".", "web1", "web1/var", "web1/var/log2"]


@pytest.mark.parametrize("how", ["cut back", "epoch", "lost ledger"])
def test_folders_of_a_new_file_are_synced_also_when_who_made_it_was_killed(
    tmp_path: Path, synced: list[str], how: str
) -> None:
    crashed(tmp_path, b"", b"a\n")
    if how == "lost ledger":
        lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        if how == "epoch":
            it.begin_epoch()
        elif how == "cut back":
            it.vault.cut_back()
        it.write("web1", b"log", b"a\n")
        it.commit()
        assert set(names(synced, tmp_path)) == {".", "web1", "web1/log"}
        assert (tmp_path / "web1/log").read_bytes() == b"a\n"


def test_folders_that_a_sweep_removed_stop_no_sync(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"sub/log", b"a\n")
        shutil.rmtree(tmp_path / "web1")
        it.commit()
        it.write("web1", b"sub/log", b"b\n")
        it.commit()
        assert (tmp_path / "web1/sub/log").read_bytes() == b"b\n"


def expect_nothing_torn_when_full(it: Partition, path: Path, full: Callable[[], object], error: int) -> None:
    it.write("web1", b"log", b"0123456\n")
    it.commit()
    full()
    it.append("web1", b"log", b"x" * 300 * 1024 + b"\n")
    with pytest.raises(OSError, match=os.strerror(error)):
        it.vault.flush()
    assert path.stat().st_size > 8
    it.vault.take_back()
    assert path.read_bytes() == b"0123456\n"


def expect_it_goes_on(directory: Path, path: Path) -> None:
    with opened(directory) as it:
        it.vault.cut_back()
        it.write("web1", b"log", b"x" * 300 * 1024 + b"\n")
        it.commit()
    assert path.read_bytes() == b"0123456\n" + b"x" * 300 * 1024 + b"\n"


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_on_a_real_full_disk_no_torn_line_stays_and_nothing_is_lost(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        path, filler = tmp_path / "web1/log", tmp_path / "filler"
        with opened(tmp_path) as it:
            taken = sum(each.stat().st_size for each in (tmp_path / LEDGER_FOLDER).iterdir())
            filling = bytes(800 * 1024 - taken)
            expect_nothing_torn_when_full(it, path, partial(filler.write_bytes, filling), errno.ENOSPC)
        filler.unlink()
        expect_it_goes_on(tmp_path, path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_beyond_a_limit_of_size_no_torn_line_stays_and_nothing_is_lost(tmp_path: Path) -> None:
    """The kernel's own short write and error; Python ignores SIGXFSZ."""
    path = tmp_path / "web1/log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path) as it:
        try:
            limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100 * 1024, hard))
            expect_nothing_torn_when_full(it, path, limit, errno.EFBIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    expect_it_goes_on(tmp_path, path)


def test_a_sync_that_fails_is_raised_and_what_it_was_about_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\n")
        it.commit()
        it.write("web1", b"log", b"b\n")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
            patch.setattr(os, "fdatasync", fail)
            it.vault.sync()
        it.vault.close()
        assert it.vault.uncommitted == 0
        it.vault.cut_back()
        assert (tmp_path / "web1/log").read_bytes() == b"a\n"
        it.write("web1", b"log", b"b\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize("compress", [None, 1])
def test_what_is_here_and_comes_no_more_is_kept_once_with_what_comes_behind_it(
    tmp_path: Path, compress: int | None
) -> None:
    """The broker has lost all three lines, and the producer knows that the first of them was acknowledged."""
    name = b"log" if compress is None else b"log.gz"
    with opened(tmp_path, compress=compress) as it:
        it.write("web1", name, b"a\n")
        it.commit()
        it.write("web1", name, b"b\n", b"c\n", b"d\n")
    with opened(tmp_path, compress=compress) as it:
        it.begin_epoch()
        it.vault.append("web1", name, 0, 0, b"c\nd\ne\n", missing=2)
        it.commit()
    content = (tmp_path / "web1" / name.decode()).read_bytes()
    assert (content if compress is None else gzip.decompress(content)) == b"a\nb\nc\nd\ne\n"


def test_what_is_missing_and_not_here_is_not_taken_for_what_is(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\n")
        it.commit()
        it.write("web1", b"log", b"b\n", b"c\n")
    with opened(tmp_path) as it:
        it.begin_epoch()
        it.vault.append("web1", b"log", 0, 0, b"x\n", missing=2)
        it.vault.append("web1", b"log", 0, 0, b"c\n", missing=2)
        it.commit()
    assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\nx\nc\n"


def test_a_file_that_another_partition_writes_is_waited_for_and_taken_over_after_its_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path, OTHER) as two:
        one.write("web1", b"log", b"a\n")
        two.write("web2", b"log", b"another\n")
        two.write("web1", b"log", b"b\n")
        assert (tmp_path / "web2/log").read_bytes() == b"another\n"
        (left,) = two.vault.left()
        assert left == (b"web1/log", str(tmp_path / "web1/log"))
        fd = two.vault.write_contested(left)
        assert fd is not None and os.path.samestat(os.fstat(fd), os.stat(tmp_path / "web1/log"))
        one.commit()
        assert two.vault.write_contested(left) is None
        assert two.ledger.file(b"web1/log") == (OTHER, FileRow(b"web1/log", 2, 0))
        one.write("web1", b"log", b"c\n")
        assert [left.path for left in one.vault.left()] == [b"web1/log"]
        two.commit()
        assert one.vault.write_contested(left) is None
        one.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\n"


def test_what_is_contested_comes_last_in_one_order_until_nobody_contests_it_any_more(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        for host in ("web3", "web1", "web2"):
            it.write(host, b"log", b"a\n")
        it.vault.contest_all()
        it.commit()
        for host in ("web3", "web1", "web4", "web2"):
            it.write(host, b"log", b"b\n")
        assert [left.path for left in it.vault.left()] == [b"web1/log", b"web2/log", b"web3/log"]
        assert (tmp_path / "web4/log").read_bytes() == b"b\n"
        for left in it.vault.left():
            assert it.vault.write_contested(left) is None
        it.commit()
        it.vault.contested.forget_old(time.monotonic() + CONTESTED_SECONDS)
        it.write("web3", b"log", b"c\n")
        assert it.vault.left() == []


def test_of_a_partition_that_was_killed_another_takes_only_what_was_committed(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"uncommitted\n")
    with opened(tmp_path, OTHER) as two:
        two.write("web1", b"log", b"b\n")
        two.commit()
    assert (tmp_path / "web1/log").read_bytes() == b"a\nb\n"
    with opened(tmp_path) as one:
        one.vault.cut_back()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\n"
        one.write("web1", b"log", b"uncommitted\n")
        one.commit()
    assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nuncommitted\n"


def test_what_was_flushed_into_a_file_that_was_taken_over_cannot_be_committed(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path, OTHER) as two:
        one.write("web1", b"log", b"a\n")
        rows = one.vault.rows()
        one.vault.close()
        two.write("web1", b"log", b"b\n")
        two.commit()
        with pytest.raises(Lost):
            one.ledger.commit(STREAM, Commit(Position("2024", 1), rows))
        assert (tmp_path / "web1/log").read_bytes() == b"b\n"


class TakenMeanwhile:
    """A ledger behind which another partition takes the file over, just when its files have been looked up."""

    def __init__(self, ledger: Ledger, take: Callable[[], None]) -> None:
        self._ledger = ledger
        self._take = take

    def files_of(self, stream: str) -> list[FileRow]:
        rows = self._ledger.files_of(stream)
        self._take()
        return rows

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)


@pytest.mark.parametrize("committed", [True, False])
def test_a_file_that_another_partition_takes_over_meanwhile_is_not_cut(tmp_path: Path, committed: bool) -> None:
    crashed(tmp_path, b"a\n", b"uncommitted\n")
    with opened(tmp_path) as one, opened(tmp_path, OTHER) as two:

        def take() -> None:
            two.write("web1", b"log", b"the other's\n")
            if committed:
                two.commit()

        ledger: object = TakenMeanwhile(one.ledger, take)
        Vault(one.root, ledger, STREAM, one._unwritten, 10).cut_back()  # type: ignore[arg-type]
        assert (tmp_path / "web1/log").read_bytes() == b"a\nthe other's\n"
        if not committed:
            two.commit()
            assert (tmp_path / "web1/log").read_bytes() == b"a\nthe other's\n"


def test_more_files_than_descriptors_are_written_in_order(tmp_path: Path) -> None:
    with opened(tmp_path, descriptors=5) as it:
        for number in range(3):
            for host in range(40):
                it.append("web%d" % host, b"log", b"%d\n" % number)
                if it.vault.crowded:
                    it.commit()
                    assert open_logs() <= 5
        it.commit()
        for host in range(40):
            assert (tmp_path / ("web%d" % host) / "log").read_bytes() == b"0\n1\n2\n"
        it.vault.close()
        assert open_logs() == 0
        assert {row.length for row in it.ledger.files_of(STREAM)} == {6}


def test_a_file_is_kept_open_between_commits_and_let_go_of_when_it_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        for _turn in range(3):
            it.write("web1", b"log", b"a\n")
            it.commit()
            assert open_logs() == 1
        it.vault.close()
        assert open_logs() == 0


@pytest.mark.parametrize("how", ["removed", "renamed", "folder removed", "replaced"])
def test_a_file_that_an_operator_takes_away_is_made_anew(tmp_path: Path, how: str) -> None:
    root = tmp_path / "archive"
    path = root / "web1/log"
    with opened(root) as it:
        it.write("web1", b"log", b"a\n")
        it.commit()
        if how == "renamed":
            path.rename(tmp_path / "renamed")
        else:
            path.unlink()
            if how == "folder removed":
                path.parent.rmdir()
            elif how == "replaced":
                path.write_bytes(b"x\n")
        it.write("web1", b"log", b"b\n")
        it.commit()
        assert path.read_bytes() == (b"x\nb\n" if how == "replaced" else b"b\n")
        if how == "renamed":
            assert (tmp_path / "renamed").read_bytes() == b"a\n"
    with opened(root) as it:
        it.vault.cut_back()
        it.write("web1", b"log", b"c\n")
        it.commit()
        assert path.read_bytes().endswith(b"b\nc\n")


@pytest.mark.parametrize("size", [0, 3])
def test_a_file_that_an_operator_truncates_is_continued_there_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\nb\nc\n")
        it.commit()
        os.truncate(tmp_path / "web1/log", size)
        it.write("web1", b"log", b"d\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb"[:size] + b"d\n"
    assert caplog.messages == ["%s/web1/log was cut by somebody, from 6 to %d bytes; going on there" % (tmp_path, size)]


def spoil(path: Path, what: str) -> None:
    if path.exists():
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    if what == "folder":
        path.mkdir()
        for number in range(100):
            (path / ("something with a long name, so that the folder has a size %d" % number)).touch()
    elif what == "link":
        path.symlink_to("/dev/null/" + "x" * 200)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "link above":
        path.parent.rename(path.parent.with_name("moved"))
        path.parent.symlink_to("moved")
        (path.parent / "log").write_bytes(b"grown there\n" * 10)
    else:
        path.parent.rmdir()
        path.parent.write_bytes(b"x" * 500)


SPOILS = ["folder", "link", "fifo", "link above", "file above"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("what", SPOILS)
def test_what_is_no_file_in_a_files_place_is_given_up_and_stops_nobody(tmp_path: Path, what: str, known: bool) -> None:
    with opened(tmp_path) as it:
        if known:
            it.write("web1", b"log", b"a\n")
            it.commit()
        spoil(tmp_path / "web1/log", what)
        it.write("web1", b"log", b"12345\n")
        it.write("web2", b"log", b"a\n")
        it.commit()
        assert [entry[:3] for entry in it.given_up] == [("web1", "%s/web1/log" % tmp_path, 6)]
        assert (tmp_path / "web2/log").read_bytes() == b"a\n"


@pytest.mark.parametrize("what", SPOILS)
def test_what_is_no_file_in_a_files_place_stops_no_start_and_no_epoch(tmp_path: Path, what: str) -> None:
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\n")
        it.write("web2", b"log", b"a\n")
        it.commit()
        it.write("web2", b"log", b"b\n")
    spoil(tmp_path / "web1/log", what)
    with opened(tmp_path) as it:
        assert [row.path for row in it.vault.tails()] == [b"web2/log"]
        it.vault.cut_back()
        assert (tmp_path / "web2/log").read_bytes() == b"a\n"
    if what == "link above":
        assert (tmp_path / "moved/log").read_bytes() == b"grown there\n" * 10


def test_a_kept_tail_is_compared_and_what_is_identical_is_not_doubled(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"b\nc\n")
    with opened(tmp_path) as it:
        it.begin_epoch()
        it.vault.cut_back()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\n"
        for data in (b"b\n", b"c\nd\n", b"e\n"):
            it.write("web1", b"log", data)
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\nd\ne\n"


def test_a_kept_tail_is_compared_from_where_the_last_commit_left_it_also_after_another_crash(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"b\nc\nd\n")
    with opened(tmp_path) as it:
        it.begin_epoch()
        it.write("web1", b"log", b"b\n")
        it.commit()
        it.write("web1", b"log", b"c\n")
    with opened(tmp_path) as it:
        it.vault.cut_back()
        it.write("web1", b"log", b"c\nd\n", b"e\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\nd\ne\n"


def test_a_torn_tail_is_completed_by_the_same_line(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"b\nlong li")
    with opened(tmp_path) as it:
        it.begin_epoch()
        it.write("web1", b"log", b"b\n", b"long line\n", b"c\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nlong line\nc\n"


@pytest.mark.parametrize("tail", [b"lost\n", b"lost\nto", b"to"])
def test_behind_a_kept_tail_that_is_something_else_its_torn_line_is_cut_off_and_the_rest_stays(
    tmp_path: Path, tail: bytes
) -> None:
    kept = b"lost\n" if tail.startswith(b"lost") else b""
    crashed(tmp_path, b"a\n", tail)
    with opened(tmp_path) as it:
        it.begin_epoch()
        it.write("web1", b"log", b"x\ny\nz\n", b"w\n")
        assert (tmp_path / "web1/log").read_bytes() == b"a\n" + kept + b"x\ny\nz\nw\n"
    with opened(tmp_path) as it:
        it.vault.cut_back()
        it.write("web1", b"log", b"x\ny\nz\n", b"w\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\n" + kept + b"x\ny\nz\nw\n"


def test_what_was_the_same_before_a_torn_line_of_a_kept_tail_is_not_doubled_after_another_crash(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n", b"b\nlost\ntorn")
    for _turn in range(2):
        with opened(tmp_path) as it:
            if it.ledger.position(STREAM) == Position("2024", 1):
                it.begin_epoch()
            it.vault.cut_back()
            it.write("web1", b"log", b"b\n")
            it.write("web1", b"log", b"x\ny\n")
            assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nlost\nx\ny\n"


def test_on_a_full_disk_behind_a_torn_tail_nothing_torn_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def short(fd: int, data: memoryview, offset: int) -> int:
        if len(data) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data[:3], offset)

    crashed(tmp_path, b"a\n", b"lost\ntorn")
    with opened(tmp_path) as it:
        it.begin_epoch()
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "pwrite", short)
            it.write("web1", b"log", b"x\nyzx\n yzx\n")
        it.vault.take_back()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nlost\n"


def test_what_replaces_a_torn_tail_byte_for_byte_is_synced(tmp_path: Path, synced: list[str]) -> None:
    crashed(tmp_path, b"a\n", b"b\n1234")
    with opened(tmp_path) as it:
        it.begin_epoch()
        synced.clear()
        it.write("web1", b"log", b"abc\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nabc\n"
        assert "web1/log" in names(synced, tmp_path)


def test_kept_tails_are_on_disk_before_they_count(tmp_path: Path, synced: list[str]) -> None:
    crashed(tmp_path, b"a\n", b"b\n")
    crashed(tmp_path, b"", b"new\n", host="web2")
    synced.clear()
    with opened(tmp_path) as it:
        assert {row.path: (row.length, row.matched) for row in it.vault.tails()} == {
            b"web1/log": (4, 2),
            b"web2/log": (4, 0),
        }
        assert set(names(synced, tmp_path)) >= {"web1/log", "web2/log", "web2", "."}


def test_with_a_lost_ledger_what_comes_is_found_in_a_files_end_and_not_doubled(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\nb\nc\nd\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        assert it.ledger.begun_anew
        it.vault.cut_back()
        it.write("web1", b"log", b"c\n")
        it.write("web1", b"log", b"d\n", b"e\n")
        it.commit()
        it.write("web1", b"log", b"f\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\nd\ne\nf\n"


def test_with_a_lost_ledger_a_long_message_of_which_only_a_part_was_written_is_completed(tmp_path: Path) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(100))
    crashed(tmp_path, b"a\n", lines[:500])
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web1", b"log", lines, b"end\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\n" + lines + b"end\n"


def test_with_a_lost_ledger_what_is_not_in_the_file_is_appended_and_all_that_was_there_stays(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\nb\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"c\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\n"


def test_with_a_lost_ledger_what_is_found_counts_only_once_it_is_on_disk(tmp_path: Path, synced: list[str]) -> None:
    crashed(tmp_path, b"", b"a\nb\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\nb\n")
        it.commit()
    assert set(names(synced, tmp_path)) >= {"web1/log", "web1", "."}


def test_with_a_lost_ledger_a_file_older_than_the_message_is_not_searched(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\nb\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"b\n", stamp=LATER)
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nb\n"


def test_with_a_lost_ledger_an_old_file_is_not_searched_after_another_crash_either(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\nb\n")
    lose_ledger(tmp_path)
    os.utime(tmp_path / "web1/log", (1000, 1000))
    for _turn in range(2):
        with opened(tmp_path) as it:
            it.vault.cut_back()
            it.write("web1", b"log", b"b\n", stamp=2000 * 10**9)
            assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nb\n"


def test_with_a_lost_ledger_only_the_end_of_a_file_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "_LOOK_BACK", 4)
    crashed(tmp_path, b"a\nb\nc\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web1", b"log", b"a\n")
        it.commit()
        assert (tmp_path / "web1/log").read_bytes() == b"a\nb\nc\na\n"


def test_a_file_that_is_made_after_the_ledger_was_lost_is_not_searched(tmp_path: Path) -> None:
    crashed(tmp_path, b"a\n")
    lose_ledger(tmp_path)
    with opened(tmp_path) as it:
        it.write("web2", b"log", b"a\n", b"a\n")
        it.commit()
        it.write("web2", b"log", b"a\n")
        it.commit()
        assert (tmp_path / "web2/log").read_bytes() == b"a\na\na\n"


def test_a_file_that_is_written_for_longer_than_it_is_kept_is_not_doubled_by_cleaning(tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        it.append("web1", b"month", b"a\n", period=0)
        it.commit()
        it.append("web1", b"month", b"b\n", period=10)
        it.vault.flush()
        it.ledger.clean(5)
    with opened(tmp_path) as it:
        it.vault.cut_back()
        it.append("web1", b"month", b"b\n", period=10)
        it.commit()
        assert (tmp_path / "web1/month").read_bytes() == b"a\nb\n"


def test_the_ledger_is_where_the_docs_say(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert (tmp_path / ".shipper" / NAME).is_file()


def packed(data: bytes) -> Packed:
    return Packed(pack(9, data), len(data))


def kept(directory: Path, *members: bytes, rest: bytes = b"") -> Path:
    """A compressed file that nobody has committed, of a stream that is not what it was."""
    with opened(directory, compress=1) as it:
        it.write("web1", b"log.gz", *map(packed, members))
        path = directory / "web1/log.gz"
        with path.open("ab") as file:
            file.write(rest)
    with opened(directory, compress=1) as it:
        it.begin_epoch()
    return path


def holds(directory: Path, path: Path, *coming: bytes) -> bytes:
    """What the file holds when this has come, in two reads, and was committed."""
    with opened(directory, compress=1) as it:
        for each in coming:
            it.write("web1", b"log.gz", packed(each))
        it.commit()
        assert not it.given_up
    return gzip.decompress(path.read_bytes())


def test_a_compressed_file_is_compared_by_what_it_holds_however_blocks_are_cut(tmp_path: Path) -> None:
    path = kept(tmp_path, b"one\ntwo\n", b"three\n")
    before = path.read_bytes()
    assert holds(tmp_path, path, b"one\n", b"two\nthree\nfour\n") == b"one\ntwo\nthree\nfour\n"
    assert path.read_bytes() == before + pack(1, b"four\n")


@pytest.mark.parametrize("rest", [pack(1, b"torn\n")[:-1], pack(1, b"torn\n")[:9], bytes(100)])
def test_of_a_compressed_file_that_is_kept_what_is_torn_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    path = kept(tmp_path, b"one\n", rest=rest)
    assert gzip.decompress(path.read_bytes()) == b"one\n"
    assert holds(tmp_path, path, b"one\n", b"torn\n") == b"one\ntorn\n"


def test_of_a_compressed_file_that_is_kept_what_is_damaged_is_cut_off_and_what_is_behind_it(tmp_path: Path) -> None:
    damaged = bytearray(pack(1, b"two\n"))
    damaged[-8] ^= 1
    path = kept(tmp_path, b"one\n", rest=bytes(damaged) + pack(1, b"three\n"))
    assert holds(tmp_path, path, b"one\ntwo\n", b"three\n") == b"one\ntwo\nthree\n"


def test_a_line_that_was_sent_in_pieces_and_is_not_finished_is_cut_off(tmp_path: Path) -> None:
    path = kept(tmp_path, b"one\n", b"to", b"rn")
    assert holds(tmp_path, path, b"other\n") == b"one\nother\n"


def test_a_line_that_ends_within_a_block_is_ended(tmp_path: Path) -> None:
    """Nobody makes such blocks; but nothing of the lines before it may be lost."""
    path = kept(tmp_path, b"one\nto")
    assert holds(tmp_path, path, b"other\n") == b"one\nto\nother\n"


def test_a_damaged_block_that_has_to_be_compared_is_told_and_not_written(tmp_path: Path) -> None:
    path = kept(tmp_path, b"one\n")
    damaged = bytearray(pack(1, b"one\ntwo\n"))
    damaged[-8] ^= 1
    with opened(tmp_path, compress=1) as it:
        it.write("web1", b"log.gz", Packed(damaged, 8), packed(b"one\nthree\n"))
        it.commit()
        assert it.given_up == [("web1", str(path), len(damaged), errno.EBADMSG)]
    assert gzip.decompress(path.read_bytes()) == b"one\nthree\n"


def test_what_comes_plain_is_compressed_a_message_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path, compress=6) as it:
        it.write("web1", b"log.gz", b"one\n", packed(b"two\n"), b"three\n")
        it.commit()
    expected = pack(6, b"one\n") + pack(9, b"two\n") + pack(6, b"three\n")
    assert (tmp_path / "web1/log.gz").read_bytes() == expected


@pytest.mark.parametrize("committed", [True, False])
def test_a_tail_that_another_partition_takes_over_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    path = tmp_path / "web1/log.gz"
    with opened(tmp_path, compress=1) as it:
        it.write("web1", b"log.gz", packed(b"one\n"))
        rows = it.ledger.files_of(STREAM)
    with opened(tmp_path, OTHER, compress=1) as other, opened(tmp_path, compress=1) as it:
        other.write("web1", b"log.gz", packed(b"two\n"))
        if committed:
            other.commit()
        with path.open("ab") as file:
            file.write(pack(1, b"just being written\n")[:-1])
        before = path.read_bytes()
        # As it was read before the other one came.
        monkeypatch.setattr(it.ledger, "files_of", lambda stream: rows)
        it.begin_epoch()
        it.vault.cut_back()
        assert path.read_bytes() == before
