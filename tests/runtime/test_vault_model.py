# SPDX-License-Identifier: GPL-3.0-or-later
"""Random histories of a stream and of crashes against intake, vault and ledger: what was sent is archived once."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shipper_runtime.addresses import Addresses
from shipper_runtime.confined import Root
from shipper_runtime.intake import Intake, Known, SteadyTime
from shipper_runtime.ledger import Commit, Ledger, LifeRow, Position, advanced
from shipper_runtime.output import OutputPattern, parse_output
from shipper_runtime.packing import Packed, pack, received
from shipper_runtime.vault import Vault
from shipper_runtime.wire import FINISHED, MORE, Payload, Span, decode, encode
from tests.torture.compare import unpacked

STEPS = 40
STREAM = "logs-p0"
SECOND = 10**9
# 2024-01-30 00:00 UTC: a month ends soon.
BEGIN = 1706572800 * SECOND
OUTPUTS = [
    parse_output(pattern, rotate, packed)
    for packed in (False, True)
    for pattern, rotate in (
        ("{source}-%Y%m%d%H%M", 60),
        ("log-%Y%m%d%H%M", 60),
        ("{source}-%Y%m", 86400),
        ("%Y%m/log", 86400),
    )
]


@dataclass(frozen=True)
class Line:
    """A line that was sent; plain ones have no life."""

    data: bytes
    life: str = ""
    begin: int = 0

    @property
    def end(self) -> int:
        return self.begin + len(self.data)


@dataclass(frozen=True)
class Message:
    """A message of the stream."""

    stamp: int
    host: str
    source: Source
    life: str
    begin: int
    end: int
    partial: str | None
    data: bytes
    packed: bool = False

    def covers(self, line: Line) -> bool:
        if line.life != self.life:
            return False
        return self.data == line.data if not self.life else self.begin < line.end and line.begin < self.end

    def wire(self) -> tuple[dict[str, str] | None, bytes]:
        if not self.life:
            return None, self.data[:-1]
        span = Span(self.source.path, self.life, self.begin, self.end, 0, "0" * 32, self.partial, self.packed)
        if self.packed:
            return encode(self.host, span), pack(1, self.data)
        return encode(self.host, span), self.data if self.partial else self.data[:-1]


class Source:
    """A source of a host, or its plain messages: every line holds the tag, and no two are alike."""

    def __init__(self, number: int, host: str, path: bytes) -> None:
        self.tag = b"s%d:" % number
        self.host = host
        self.path = path
        self.lines: list[Line] = []
        self.lost: set[Line] = set()
        self.lives = 0
        self.begin_life()

    def begin_life(self) -> None:
        self.lives += 1
        self.life = "%s%031x" % (self.tag[1:2].decode(), self.lives) if self.path else ""
        self.content = b""
        self.sent = 0
        # What was lost for good before this offset is not sent again.
        self.least = 0
        self.finished = False

    def write(self, body: bytes, end: bytes = b"\n") -> None:
        # Of two lines not even the beginnings are alike: of a piece that is, nothing could tell which line's it is.
        data = b"%c%s%03d %s%s" % (ord("!") + len(self.lines), self.tag, len(self.lines), body, end)
        self.lines.append(Line(data, self.life, len(self.content)))
        self.content += data

    def message(self, stamp: int, begin: int, end: int) -> Message:
        data = self.content[begin:end]
        partial = None if data.endswith(b"\n") else FINISHED if self.finished and end == len(self.content) else MORE
        # Producers pack, and some blocks do not become smaller.
        return Message(stamp, self.host, self, self.life, begin, end, partial, data, packed=(begin + end) % 3 > 0)


def split(message: Message, at: int, content: bytes) -> list[Message]:
    """Two messages for one, or the one where there is nothing to split."""
    middle = message.begin + at
    if not message.begin < middle < message.end:
        return [message]
    data = content[: middle - message.begin]
    first = replace(message, end=middle, data=data, partial=None if data.endswith(b"\n") else MORE)
    return [first, replace(message, stamp=message.stamp + 1, begin=middle, data=content[middle - message.begin :])]


def carried(line: Line, messages: list[Message]) -> bool:
    """Whether all of a line is in these, in pieces or not."""
    at = line.begin
    for message in sorted((each for each in messages if each.covers(line)), key=lambda each: each.begin):
        if not message.life:
            return True
        if message.begin <= at:
            at = max(at, message.end)
    return at >= line.end


class Disk:
    """What of the archive's files would be there after a power loss; looks on at every sync."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, set[str]] = {}
        self._calls = {name: getattr(os, name) for name in ("fsync", "fdatasync")}
        for name, call in self._calls.items():
            setattr(os, name, self._noting(call))

    def restore(self) -> None:
        for name, call in self._calls.items():
            setattr(os, name, call)

    def _noting(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            self.note(Path(os.readlink("/proc/self/fd/%d" % fd)))

        return sync

    def note(self, path: Path) -> None:
        if path.is_dir():
            self.names[path] = set(os.listdir(path))
        elif path.exists():
            self.contents[path.stat().st_ino] = path.read_bytes()

    def _is_linked(self, path: Path) -> bool:
        return path == self.root or (path.name in self.names.get(path.parent, ()) and self._is_linked(path.parent))

    def lose_power(self, random: Random) -> None:
        """Of what was not synced some is lost."""
        for path in [each for each in self.root.glob("*/**/*") if each.is_file() and ".shipper" not in each.parts]:
            synced, now = self.contents.get(path.stat().st_ino, b""), path.read_bytes()
            if not self._is_linked(path) and random.random() < 0.5:
                path.unlink()
            elif now.startswith(synced):
                os.truncate(path, random.randint(len(synced), len(now)))
            elif random.random() < 0.5:
                with path.open("r+b") as file:
                    file.write(synced)
                    file.truncate()
        for path in (self.root, *self.root.rglob("*")):
            self.note(path)


class Session:
    """A reader's session, as in reader.py, without a broker."""

    def __init__(self, directory: Path, output: OutputPattern, model: StreamAndArchive) -> None:
        self.model = model
        self.output = output
        self.root = Root(str(directory))
        self.ledger = Ledger(str(directory))
        self.vault = Vault(self.root, self.ledger, STREAM, self._unwritten, 2, 1 if output.packed else None)
        self.intake = Intake(whole_lines=not output.has_source, packed=output.packed, hosts=1, recall=self._recall)
        self.addresses = Addresses("shipper", output)
        self.addresses_have_source = output.has_source
        position = self.ledger.position(STREAM)
        if position is None:
            position = Position(model.created)
            self.ledger.begin(STREAM, position, forget_lives=False)
        committed = model.stream.get(position.sequence)
        fenced = committed is not None and committed.stamp == position.stamp
        if position.created != model.created or (position.sequence and not fenced):
            until = max(position.stamp, position.latest, position.replay_until)
            position = Position(model.created, 0, 0, position.latest, until)
            self.ledger.begin_epoch(STREAM, position, self.vault.tails())
        self.vault.cut_back()
        self.position = position
        self.time = SteadyTime(position.latest)

    def _unwritten(self, host: str, path: str, size: int, error: OSError) -> None:
        raise AssertionError("%s: %s" % (path, error))

    def _recall(self, host: str) -> list[Known]:
        return [Known(row.life, row.next, row.aside) for row in self.ledger.lives(STREAM, host)]

    def take(self) -> bool:
        """The next message; whether there is one."""
        behind = [sequence for sequence in self.model.stream if sequence > self.position.sequence]
        if not behind:
            return False
        sequence = min(behind)
        assert self.position.sequence in (0, sequence - 1)
        message = self.model.stream[sequence]
        old = message.stamp <= self.position.replay_until
        self.position = advanced(self.position, sequence, message.stamp)
        headers, payload = message.wire()
        span = decode(headers, len(payload))
        data: Payload | Packed = payload + b"\n"
        missing = 0
        if span is not None:
            data, missing, *_others = self.intake.take(message.host, span, received(span, payload))
        elif old:
            data = b""
        if data:
            self.addresses.at(self.time.at(message.stamp))
            name = self.addresses.name(None if span is None else span.source)
            missing *= self.addresses_have_source
            self.vault.append(message.host, name, self.addresses.period, message.stamp, data, missing)
        if self.vault.crowded:
            self.commit()
        return True

    def commit(self) -> None:
        self.vault.flush()
        lives, forgotten = self.intake.changes()
        commit = Commit(
            self.position._replace(latest=self.time.latest),
            self.vault.rows(),
            [LifeRow(host, *known) for host, known in lives],
            forgotten,
        )
        self.vault.sync()
        self.ledger.commit(STREAM, commit)
        self.vault.settle()
        self.intake.settle()

    def close(self) -> None:
        self.vault.close()
        self.root.close()
        self.ledger.close()


class StreamAndArchive(RuleBasedStateMachine):
    """Two hosts' sources, the stream they are sent to, and a reader."""

    def __init__(self) -> None:
        super().__init__()
        # What a power loss leaves is decided here, so that the ledger need not wait for a disk.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="vault-model-", dir=memory))
        self.disk = Disk(self.folder)
        self.output = OUTPUTS[0]
        paths = [("web1", b"/var/log/a"), ("web1", b"/var/log/b"), ("web2", b"/var/log/a"), ("web2", b"")]
        self.sources = [Source(number, host, path) for number, (host, path) in enumerate(paths)]
        self.stream: dict[int, Message] = {}
        self.next = 1
        self.epochs = 0
        self.created = "0"
        self.now = BEGIN
        self.session: Session | None = None
        self.archived: list[Message] = []
        # Whether the next session finds that numbers are used a second time.
        self.is_seen = False

    @initialize(output=st.sampled_from(OUTPUTS))
    def choose(self, output: OutputPattern) -> None:
        self.output = output

    def store(self, message: Message) -> None:
        self.stream[self.next] = message
        self.next += 1

    def stamp(self) -> int:
        self.now += SECOND // 1000
        return self.now

    def send_rest(self, source: Source, most: int) -> None:
        """One block of what is not sent yet: whole lines if it holds any."""
        end = min(len(source.content), source.sent + most)
        end = source.content.rfind(b"\n", source.sent, end) + 1 or end
        if end > source.sent:
            self.store(source.message(self.stamp(), source.sent, end))
            source.sent = end

    @rule(
        number=st.integers(0, 3),
        bodies=st.lists(st.sampled_from([b"", b"\0\xff\r", b"x" * 30]), min_size=1, max_size=4),
        most=st.sampled_from([5, 40, 10**6]),
    )
    def write_and_send(self, number: int, bodies: list[bytes], most: int) -> None:
        source = self.sources[number]
        for body in bodies:
            source.write(body)
            if not source.path:
                data = source.lines[-1].data
                self.store(Message(self.stamp(), source.host, source, "", 0, 0, None, data))
        if source.path:
            self.send_rest(source, most)

    @rule(number=st.integers(0, 2), back=st.integers(1, 60), length=st.integers(1, 90))
    def send_again(self, number: int, back: int, length: int) -> None:
        source = self.sources[number]
        begin = max(source.least, source.sent - back)
        end = min(len(source.content), begin + length)
        if begin < end:
            self.store(source.message(self.stamp(), begin, end))
            source.sent = max(source.sent, end)

    @rule(number=st.integers(0, 2), complete=st.booleans())
    def rotate(self, number: int, complete: bool) -> None:
        source = self.sources[number]
        if not complete:
            source.write(b"no newline", b"")
        source.finished = True
        while source.sent < len(source.content):
            self.send_rest(source, 50)
        source.begin_life()

    @rule(seconds=st.sampled_from([1, 61, 86400]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    def reading(self) -> Session:
        if self.session is None:
            self.session = Session(self.folder, self.output, self)
            self.is_seen = False
        return self.session

    @rule(count=st.integers(1, 8), flush=st.booleans(), commit=st.booleans())
    def read(self, count: int, flush: bool, commit: bool) -> None:
        session = self.reading()
        for _turn in range(count):
            if session.take() and flush:
                session.vault.flush()
        session.vault.flush()
        if commit:
            session.commit()

    @rule()
    def crash(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    @precondition(lambda self: self.session is not None)
    @rule(seed=st.integers(0, 99))
    def lose_power(self, seed: int) -> None:
        self.crash()
        self.disk.lose_power(Random(seed))

    @precondition(lambda self: self.session is not None)
    @rule()
    def trim(self) -> None:
        position = self.reading().ledger.position(STREAM)
        assert position is not None
        for sequence in [each for each in self.stream if each < position.sequence]:
            del self.stream[sequence]

    @precondition(lambda self: self.session is not None)
    @rule()
    def clean(self) -> None:
        self.reading().ledger.clean(self.output.first_kept(self.now / SECOND, 60))

    @precondition(lambda self: self.stream)
    @rule(
        count=st.integers(1, 12),
        anew=st.booleans(),
        sent_again=st.booleans(),
        at=st.sampled_from([0, 7, 25]),
        reordered=st.booleans(),
        ahead=st.integers(0, 3),
    )
    def lose_tail(self, count: int, anew: bool, sent_again: bool, at: int, reordered: bool, ahead: int) -> None:
        """The broker forgets its last messages, and uses their numbers again. ahead: so many of those that it lost had
        their producer remember that they were acknowledged, and are not sent again."""
        tail = sorted(self.stream) if anew else sorted(self.stream)[-count:]
        if not self.output.has_source and len({bool(self.stream[each].life) for each in tail}) == 2:
            # What of a shared file comes again is doubled where it stood behind lines that do not: nobody promises more
            # of what a broker has lost.
            return
        position = self.committed()
        self.crash()
        self.epochs += 1
        lost = [self.stream.pop(sequence) for sequence in tail]
        self.next = 1 if anew else tail[0]
        self.created = str(self.epochs) if anew else self.created
        # Otherwise there is nothing to be seen of it, and all that is not committed is cut off.
        self.is_seen = anew or position.sequence >= self.next
        whole = all(not each.partial and self.begins_a_line(each) for each in lost if each.life)
        if sent_again or not whole:
            gone = [each for each in lost if not each.life]
            lost = [each for each in lost if each.life]
            if whole and self.output.has_source:
                gone += lost[:ahead]
                lost = lost[ahead:]
            self.send_lost(lost, at, reordered and not gone)
        else:
            gone = lost
        for message in gone:
            self.give_up(message)

    def give_up(self, message: Message) -> None:
        """Nothing is known any more of a message but what others carry, and what is in the archive as it is."""
        source = message.source
        source.least = source.sent
        others = [*self.archived, *self.stream.values()]
        files = [self.held(path) for path in self.files(source)] if self.is_seen else []
        for line in source.lines:
            there = any(line.data in content for content in files) or carried(line, others)
            if message.covers(line) and not there:
                source.lost.add(line)

    def files(self, source: Source) -> list[Path]:
        """In the order of their names."""
        folder = self.folder / source.host
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if self.output.has_source:
            prefix = source.path[1:].decode() if source.path else "plain"
            paths = [path for path in paths if path.relative_to(folder).as_posix().startswith(prefix)]
        return paths

    def held(self, path: Path) -> bytes:
        """What a file holds; a member that was never finished holds nothing."""
        return unpacked(path.read_bytes())[0] if self.output.packed else path.read_bytes()

    def committed(self) -> Position:
        """How far the stream is archived for good; those messages are remembered."""
        if self.is_seen:
            self.reading()
        with contextlib.closing(Ledger(str(self.folder))) as ledger:
            position = ledger.position(STREAM) or Position(self.created)
        self.archived += [each for sequence, each in self.stream.items() if sequence <= position.sequence]
        return position

    def begins_a_line(self, message: Message) -> bool:
        return any(line.life == message.life and line.begin == message.begin for line in message.source.lines)

    def send_lost(self, lost: list[Message], at: int, reordered: bool) -> None:
        """Again, with other times and cut in other places; where each source has its files, also in another order."""
        periods = {self.output.period(each.stamp // SECOND) for each in lost}
        if reordered and self.output.has_source and len(periods) == 1:
            stamps = [each.stamp for each in lost]
            lost = sorted(lost, key=lambda each: each.source.tag)
            lost = [replace(each, stamp=stamp) for each, stamp in zip(lost, stamps)]
        for message in lost:
            later = replace(message, stamp=message.stamp + 10 * self.epochs)
            for piece in split(later, at, later.data):
                self.store(piece)

    def teardown(self) -> None:
        try:
            for source in self.sources:
                while source.path and source.sent < len(source.content):
                    self.send_rest(source, 10**6)
            session = self.reading()
            while session.take():
                pass
            session.commit()
            for source in self.sources:
                self.check(source)
        finally:
            self.disk.restore()
            self.crash()
            shutil.rmtree(self.folder)

    def check(self, source: Source) -> None:
        """All lines are there once and in order; of those that were lost a torn one may end a file."""
        files = [
            gzip.decompress(path.read_bytes()) if self.output.packed else path.read_bytes()
            for path in self.files(source)
        ]
        expected = [(line.data, line in source.lost) for line in source.lines]
        if not self.output.has_source:
            files = [self.lines_of(source, content) for content in files]
            expected = [(data if data.endswith(b"\n") else data + b"\n", lost) for data, lost in expected]
        found = b"".join(files)
        ends = [sum(map(len, files[:number])) for number in range(len(files) + 1)]
        at = {0}
        for data, lost in expected:
            behind = {begin + len(data) for begin in at if found.startswith(data, begin)}
            if lost:
                behind |= at
                behind |= {end for begin in at for end in ends if begin < end and data.startswith(found[begin:end])}
            assert behind, "%r is missing before %r" % (data, found[max(at) :][:100])
            at = behind
        assert len(found) in at

    def lines_of(self, source: Source, content: bytes) -> bytes:
        lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
        if lines and not lines[-1].endswith(b"\n"):
            torn = lines.pop()
            lost = [line for each in self.sources if each.host == source.host for line in each.lost]
            assert any(line.data.startswith(torn) for line in lost)
        assert all(line[1:2] == b"s" for line in lines)
        return b"".join(line for line in lines if line[1:].startswith(source.tag))


TestStreamAndArchive = StreamAndArchive.TestCase
TestStreamAndArchive.settings = settings(
    max_examples=int(os.environ.get("VAULT_EXAMPLES", "250")),
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=os.environ.get("VAULT_RANDOM") is None,
    suppress_health_check=list(HealthCheck),
)
