# SPDX-License-Identifier: GPL-3.0-or-later
"""What is committed of an archive: all of a commit or nothing of it, shared by workers, true after any crash."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from shipper_runtime import ledger as ledger_module
from shipper_runtime.errors import LedgerError
from shipper_runtime.ledger import Commit, FileRow, Hole, Ledger, LifeRow, Lost, Position, advanced
from tests.support import ROOT

STREAM, OTHER = "logs-p0", "logs-p1"
START = Position("2024-01-01T00:00:00Z")
LIFE = "0" * 32


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Ledger]:
    with contextlib.closing(Ledger(str(directory))) as ledger:
        yield ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as made:
        yield made


def file_of(ledger: Path) -> Path:
    return ledger / ".shipper" / "ledger.db"


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    position = Position("2024", 7, 70, 71, 72)
    row = FileRow(b"web1/\xff\n", 10, 86400, 4)
    life = LifeRow("web1", LIFE, 2**63 - 1, b"\0aside\xff")
    hole = Hole("web1", b"/var/log/\xff", LIFE, 3, 9)
    with opened(tmp_path) as ledger:
        ledger.enter(STREAM, [FileRow(row.path, 0, row.period)])
        ledger.commit(STREAM, Commit(position, [row], [life], holes=[hole]))
        known = ledger.id
    with opened(tmp_path) as ledger:
        assert ledger.id == known
        assert ledger.position(STREAM) == position
        assert ledger.file(row.path) == (STREAM, row)
        assert ledger.files_of(STREAM) == [row]
        assert ledger.lives(STREAM, "web1") == [life]
        assert ledger.holes(STREAM) == [hole]
        assert ledger.streams() == [STREAM]


def test_of_what_was_never_read_nothing_is_known(ledger: Ledger) -> None:
    assert ledger.position(STREAM) is None
    assert (ledger.streams(), ledger.files_of(STREAM), ledger.file(b"web1/log")) == ([], [], None)
    assert (ledger.lives(STREAM, "web1"), ledger.holes(STREAM), ledger.floors(STREAM)) == ([], [], {})


def test_a_commit_of_a_file_that_another_stream_owns_makes_nothing_true(ledger: Ledger) -> None:
    ledger.begin(STREAM, START, forget_lives=False)
    ledger.enter(STREAM, [FileRow(b"web1/a", 0, 0), FileRow(b"web1/b", 0, 0)])
    ledger.commit(STREAM, Commit(Position("2024", 1), lives=[LifeRow("web1", LIFE, 5)]))
    ledger.enter(OTHER, [FileRow(b"web1/b", 0, 0)])
    commit = Commit(
        Position("2024", 2),
        [FileRow(b"web1/a", 10, 0), FileRow(b"web1/b", 10, 0)],
        [LifeRow("web1", "1" * 32, 1)],
        [("web1", LIFE)],
        [Hole("web1", b"/a", LIFE, 0, 1)],
    )
    with pytest.raises(Lost, match="web1/b"):
        ledger.commit(STREAM, commit)
    assert ledger.position(STREAM) == Position("2024", 1)
    assert ledger.file(b"web1/a") == (STREAM, FileRow(b"web1/a", 0, 0))
    assert ledger.file(b"web1/b") == (OTHER, FileRow(b"web1/b", 0, 0))
    assert ledger.lives(STREAM, "web1") == [LifeRow("web1", LIFE, 5)]
    assert ledger.holes(STREAM) == []


def test_a_commit_of_a_file_that_is_anothers_makes_nothing_true(ledger: Ledger) -> None:
    ledger.enter("logs-p1", [FileRow(b"web1/a", 0, 0)])
    with pytest.raises(Lost):
        ledger.commit(STREAM, Commit(Position("2024", 1), [FileRow(b"web1/a", 10, 0)]))
    assert ledger.position(STREAM) is None


def test_a_commit_that_the_database_refuses_makes_nothing_true_and_the_next_one_goes_well(ledger: Ledger) -> None:
    ledger.enter(STREAM, [FileRow(b"web1/a", 0, 0)])
    too_big = LifeRow("web1", LIFE, 2**63)
    with pytest.raises((OSError, OverflowError)):
        ledger.commit(STREAM, Commit(Position("2024", 1), [FileRow(b"web1/a", 10, 0)], [too_big]))
    assert ledger.position(STREAM) is None
    assert ledger.file(b"web1/a") == (STREAM, FileRow(b"web1/a", 0, 0))
    ledger.commit(STREAM, Commit(Position("2024", 1), [FileRow(b"web1/a", 10, 0)]))
    assert ledger.position(STREAM) == Position("2024", 1)


def test_two_workers_see_each_others_commits_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        assert one.id == two.id
        one.enter(STREAM, [FileRow(b"web1/a", 0, 0)])
        assert two.file(b"web1/a") == (STREAM, FileRow(b"web1/a", 0, 0))
        two.enter(OTHER, [FileRow(b"web1/a", 0, 0)])
        with pytest.raises(Lost):
            one.commit(STREAM, Commit(Position("2024", 1), [FileRow(b"web1/a", 1, 0)]))
        two.commit(OTHER, Commit(Position("2024", 5), [FileRow(b"web1/a", 9, 0)], [LifeRow("web1", LIFE, 9)]))
        assert one.file(b"web1/a") == (OTHER, FileRow(b"web1/a", 9, 0))
        assert one.position(OTHER) == Position("2024", 5)
        assert one.lives(OTHER, "web1") == [LifeRow("web1", LIFE, 9)]


def test_workers_that_start_in_the_same_moment_have_one_ledger(tmp_path: Path) -> None:
    ids: list[str] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        with opened(tmp_path) as ledger:
            ids.append(ledger.id)
            ledger.begin("logs-p%d" % len(ids), START, forget_lives=False)

    threads = [threading.Thread(target=start) for _turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_workers_that_commit_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with opened(tmp_path) as ledger:
                for sequence in range(1, 26):
                    ledger.commit("logs-p%d" % number, Commit(Position("2024", sequence)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with opened(tmp_path) as ledger:
        assert [ledger.position(stream) for stream in ledger.streams()] == [Position("2024", 25)] * 4


def test_only_one_process_reads_a_stream_at_a_time(tmp_path: Path) -> None:
    script = "import sys; from shipper_runtime.ledger import Ledger; print(Ledger(sys.argv[1]).lock(sys.argv[2]))"

    def tried_elsewhere(stream: str) -> str:
        command = [sys.executable, "-c", script, str(tmp_path), stream]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    with opened(tmp_path) as one, opened(tmp_path) as two:
        held = one.lock(STREAM)
        assert held is not None
        assert one.lock(STREAM) is None
        assert two.lock(STREAM) is None
        assert tried_elsewhere(STREAM) == "None"
        other = two.lock(OTHER)
        assert other is not None
        os.close(held)
        again = two.lock(STREAM)
        assert again is not None
        os.close(again)
        os.close(other)
        assert tried_elsewhere(STREAM).isdigit()


def test_to_begin_keeps_floors_and_forgets_lives_only_if_told_so(ledger: Ledger) -> None:
    mine, others = LifeRow("web1", LIFE, 5), LifeRow("web1", "1" * 32, 6)
    ledger.commit(STREAM, Commit(Position("2024", 1), lives=[mine]))
    ledger.commit(OTHER, Commit(Position("2024", 1), lives=[others]))
    ledger.keep_floors(STREAM, {"archive": (1, 10)})
    ledger.begin(STREAM, Position("2024", 9, 90), forget_lives=False)
    assert ledger.position(STREAM) == Position("2024", 9, 90)
    assert ledger.lives(STREAM, "web1") == [mine]
    ledger.begin(STREAM, Position("2024", 10), forget_lives=True)
    assert ledger.lives(STREAM, "web1") == []
    assert ledger.lives(OTHER, "web1") == [others]
    assert ledger.floors(STREAM) == {"archive": (1, 10)}


def test_an_epoch_keeps_what_files_hold_and_the_lives(ledger: Ledger) -> None:
    ledger.enter(STREAM, [FileRow(b"web1/a", 0, 0), FileRow(b"web1/b", 0, 0)])
    ledger.commit(STREAM, Commit(Position("2024", 5, 50), [FileRow(b"web1/a", 10, 0)], [LifeRow("web1", LIFE, 10)]))
    epoch = Position("2025", 0, 0, 50, 50)
    ledger.keep_floors(STREAM, {"other": (4, 10)})
    ledger.begin_epoch(STREAM, epoch, [FileRow(b"web1/a", 17, 0, 10)])
    assert ledger.position(STREAM) == epoch
    # What another group had committed was of other numbers: it may need all of these.
    assert ledger.floors(STREAM) == {"other": (0, 10)}
    assert ledger.file(b"web1/a") == (STREAM, FileRow(b"web1/a", 17, 0, 10))
    assert ledger.file(b"web1/b") == (STREAM, FileRow(b"web1/b", 0, 0))
    assert ledger.lives(STREAM, "web1") == [LifeRow("web1", LIFE, 10)]


def test_an_epoch_does_not_take_back_a_file_that_another_partition_has_taken_over(ledger: Ledger) -> None:
    ledger.enter(STREAM, [FileRow(b"web1/a", 5, 0)])
    found = FileRow(b"web1/a", 9, 0, 5)
    ledger.enter(OTHER, [FileRow(b"web1/a", 5, 0)])
    ledger.commit(OTHER, Commit(Position("2024", 1), [FileRow(b"web1/a", 20, 0)]))
    ledger.begin_epoch(STREAM, Position("2025"), [found])
    assert ledger.file(b"web1/a") == (OTHER, FileRow(b"web1/a", 20, 0))


def test_an_epoch_does_not_bring_back_a_file_that_was_forgotten(ledger: Ledger) -> None:
    ledger.begin_epoch(STREAM, Position("2025"), [FileRow(b"web1/gone", 9, 0, 5)])
    assert ledger.files_of(STREAM) == []


def test_a_released_stream_is_not_this_archives_any_more_until_it_is_begun_again(ledger: Ledger) -> None:
    for stream in (STREAM, OTHER):
        ledger.begin(stream, START, forget_lives=False)
        ledger.keep_floors(stream, {"archive": (3, 10)})
    ledger.release(STREAM)
    assert ledger.streams() == [OTHER]
    # Should nobody else have taken it, it goes on here with all that is known of it.
    assert ledger.position(STREAM) == START
    ledger.begin(STREAM, START, forget_lives=False)
    assert ledger.streams() == [STREAM, OTHER]
    assert ledger.floors(OTHER) == {"archive": (3, 10)}


def test_floors_stay_as_they_are_through_commits(ledger: Ledger) -> None:
    floors = {"archive": (3, 10), "caf\u00e9": (2**40, 2**60)}
    ledger.begin(STREAM, START, forget_lives=False)
    ledger.keep_floors(STREAM, floors)
    ledger.commit(STREAM, Commit(Position("2024", 4)))
    assert ledger.floors(STREAM) == floors
    ledger.keep_floors(STREAM, {})
    assert ledger.floors(STREAM) == {}


def test_holes_are_kept_in_order_and_by_stream(ledger: Ledger) -> None:
    first, second = Hole("web1", b"/a", LIFE, 0, 4), Hole("", b"", "", 7, 9)
    ledger.commit(STREAM, Commit(Position("2024", 1), holes=[first]))
    ledger.commit(OTHER, Commit(Position("2024", 1), holes=[Hole("web2", b"/b", LIFE, 1, 2)]))
    ledger.commit(STREAM, Commit(Position("2024", 9), holes=[second, first]))
    assert ledger.holes(STREAM) == [first, second, first]


def test_lives_come_in_the_order_in_which_they_were_last_used(ledger: Ledger) -> None:
    for life in "abca":
        ledger.commit(STREAM, Commit(Position("2024", 1), lives=[LifeRow("web1", life * 32, 1)]))
    assert [row.life[0] for row in ledger.lives(STREAM, "web1")] == ["b", "c", "a"]
    ledger.commit(STREAM, Commit(Position("2024", 2), forgotten=[("web1", "c" * 32)]))
    assert [row.life[0] for row in ledger.lives(STREAM, "web1")] == ["b", "a"]


def test_cleaning_forgets_files_that_are_gone_and_too_old_and_nothing_else(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1/old").write_bytes(b"x\n")
    rows = [FileRow(b"web1/" + name, 2, period) for name, period in ((b"gone", 99), (b"old", 99), (b"fresh", 100))]
    ledger.enter(STREAM, rows)
    ledger.commit(STREAM, Commit(Position("2024", 1), lives=[LifeRow("web1", LIFE, 5)]))
    ledger.clean(100)
    assert {row.path for row in ledger.files_of(STREAM)} == {b"web1/old", b"web1/fresh"}
    assert ledger.position(STREAM) == Position("2024", 1)
    assert ledger.lives(STREAM, "web1") == [LifeRow("web1", LIFE, 5)]


def test_a_file_that_was_swept_before_its_commit_holds_nothing_up(ledger: Ledger) -> None:
    rows = [FileRow(b"web1/old", 0, 99), FileRow(b"web1/fresh", 0, 100)]
    ledger.enter(STREAM, rows)
    ledger.clean(100)
    ledger.commit(STREAM, Commit(Position("2024", 1), [dataclasses.replace(row, length=2) for row in rows]))
    assert ledger.position(STREAM) == Position("2024", 1)
    assert ledger.files_of(STREAM) == [FileRow(b"web1/fresh", 2, 100)]


def test_cleaning_keeps_the_newest_holes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_HOLES_MOST", 3)
    for number in range(1, 6):
        ledger.commit(STREAM, Commit(Position("2024", number), holes=[Hole("", b"", "", number, number + 1)]))
    ledger.clean(0)
    assert [hole.first for hole in ledger.holes(STREAM)] == [3, 4, 5]


def test_cleaning_forgets_lives_that_nothing_came_of_for_long(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.commit(STREAM, Commit(Position("2024", 1), lives=[LifeRow("web1", LIFE, 5)]))
    ledger.clean(0)
    assert len(ledger.lives(STREAM, "web1")) == 1
    monkeypatch.setattr(ledger_module, "_LIFE_KEPT_SECONDS", -1)
    ledger.clean(0)
    assert ledger.lives(STREAM, "web1") == []


@pytest.mark.parametrize("there", [True, False])
def test_a_ledger_knows_for_ever_whether_files_were_there_before_it(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "web1").mkdir()
    with opened(tmp_path) as ledger:
        assert ledger.begun_anew is there
    (tmp_path / "web2").mkdir()
    with opened(tmp_path) as ledger:
        assert ledger.begun_anew is there


@pytest.mark.parametrize("made", ["nothing", "empty", "no tables"])
def test_a_ledger_whose_making_was_cut_short_is_begun_anew(tmp_path: Path, made: str) -> None:
    (tmp_path / "web1").mkdir()
    file_of(tmp_path).parent.mkdir()
    if made != "nothing":
        file_of(tmp_path).touch()
    if made == "no tables":
        with contextlib.closing(sqlite3.connect(file_of(tmp_path))) as database:
            database.execute("PRAGMA journal_mode=WAL")
    with opened(tmp_path) as ledger:
        assert ledger.begun_anew


def foreign(path: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(script)


def damage(path: Path) -> None:
    with opened(path.parent.parent) as ledger:
        ledger.begin(STREAM, START, forget_lives=False)
    content = bytearray(path.read_bytes())
    content[100:] = b"\xa5" * (len(content) - 100)
    path.write_bytes(content)


SPOILED: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"x" * 5000),
    "damaged": damage,
    "a folder": lambda path: path.mkdir(),
    "a newer version": lambda path: foreign(
        path, "CREATE TABLE meta(key, value); INSERT INTO meta VALUES ('version', '2'), ('id', 'x')"
    ),
    "without an id": lambda path: foreign(
        path, "CREATE TABLE meta(key, value); INSERT INTO meta VALUES ('version', '1')"
    ),
    "another program's": lambda path: foreign(path, "CREATE TABLE files(a)"),
    "another program's meta": lambda path: foreign(path, "CREATE TABLE meta(a)"),
    "another program's version": lambda path: foreign(
        path, "CREATE TABLE meta(key, value); INSERT INTO meta VALUES ('version', 'a' || char(10) || 'b')"
    ),
}


@pytest.mark.parametrize("how", sorted(SPOILED))
def test_a_ledger_that_is_damaged_or_foreign_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    file_of(tmp_path).parent.mkdir()
    SPOILED[how](file_of(tmp_path))
    with pytest.raises(LedgerError, match=r"ledger\.db: the ledger cannot be used: .*moved away") as refused:
        Ledger(str(tmp_path))
    assert str(refused.value).startswith(str(tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", sorted(SPOILED.keys() - {"a folder"}))
def test_what_is_refused_is_left_as_it_is(tmp_path: Path, how: str) -> None:
    file_of(tmp_path).parent.mkdir()
    SPOILED[how](file_of(tmp_path))

    def tables() -> list[tuple[str]]:
        with contextlib.closing(sqlite3.connect(file_of(tmp_path))) as database:
            return database.execute("SELECT sql FROM sqlite_master").fetchall()

    try:
        before: object = tables()
    except sqlite3.DatabaseError:
        before = file_of(tmp_path).read_bytes()
    with pytest.raises(LedgerError):
        Ledger(str(tmp_path))
    assert before == (tables() if isinstance(before, list) else file_of(tmp_path).read_bytes())


def test_a_place_that_cannot_hold_a_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".shipper").write_bytes(b"")
    with pytest.raises(LedgerError, match="the ledger cannot be used") as refused:
        Ledger(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_behind_a_message_plain_ones_are_old_only_as_long_as_its_time_is() -> None:
    position = Position("2024", 0, 0, 50, 50)
    assert advanced(position, 1, 50) == Position("2024", 1, 50, 50, 50)
    assert advanced(position, 1, 51) == Position("2024", 1, 51, 50, 0)


COMMITTING = """
import sys
from shipper_runtime.ledger import Commit, FileRow, Ledger, LifeRow, Position
ledger = Ledger(sys.argv[1])
position = ledger.position("logs-p0")
number = position.sequence if position else 0
paths = [b"web%d/log" % host for host in range(20)]
ledger.enter("logs-p0", [FileRow(path, number, 0) for path in paths])
while True:
    number += 1
    files = [FileRow(path, number, 0) for path in paths]
    lives = [LifeRow("web1", "%032x" % life, number, b"x" * number) for life in range(20)]
    ledger.commit("logs-p0", Commit(Position("2024", number), files, lives))
    print(number, flush=True)
"""


def test_what_was_committed_survives_kill_9_in_the_middle_of_commits_and_is_whole(tmp_path: Path) -> None:
    last = 0
    for turn in range(5):
        command = [sys.executable, "-c", COMMITTING, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None and worker.stderr is not None
            printed = [worker.stdout.readline() for _turn in range(3 + 7 * turn)]
            worker.send_signal(signal.SIGKILL)
            printed += worker.stdout.readlines()
            assert worker.stderr.read() == ""
        numbers = [int(line) for line in printed if line.endswith("\n")]
        assert numbers[0] > last
        with opened(tmp_path) as ledger:
            position = ledger.position(STREAM)
            assert position is not None
            last = position.sequence
            # A commit may have been made and not printed any more.
            assert last - numbers[-1] in (0, 1)
            assert {row.length for row in ledger.files_of(STREAM)} == {last}
            assert {(row.next, len(row.aside)) for row in ledger.lives(STREAM, "web1")} == {(last, last)}
    with contextlib.closing(sqlite3.connect(file_of(tmp_path))) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
