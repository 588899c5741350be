# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads one partition's stream into the archive: every message once and in order, whatever the broker does.

One session after the other. Each begins behind what the ledger says is committed, and whatever goes wrong ends it: then
what is not committed is cut off, and read again. docs/durable.md tells the whole of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from . import tally
from .addresses import Addresses
from .broker import Broker, Link
from .confined import Root
from .connection import Message
from .errors import ApiError, BrokerError, ConnectionLost, NoResponders, OutOfStep, WireError, printable
from .intake import Intake, Known, SteadyTime
from .jetstream import CONSUMER_NOT_FOUND, OLDEST_SERVER, STREAM_NOT_FOUND, JetStream, Place, place
from .ledger import Commit, Hole, Ledger, LifeRow, Lost, Position, advanced
from .meters import ConsumerMeters
from .ownership import Archive, NotOurs, is_old_copy, start
from .packing import Packed, received
from .partition import partition_subject
from .pull import Pull
from .service import Rarely
from .settings import ConsumerSettings, partition_stream
from .tally import Tally
from .trim import INTERVAL as TRIM_INTERVAL
from .trim import Trimmer, durables
from .turns import Turn
from .vault import Contested, Vault
from .wire import Payload, decode

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 1.0
COMMIT_BYTES = 8 * 1024 * 1024
TRIM_BYTES = 64 * 1024 * 1024
# A share of a stream's limit, so that a small one does not fill up between two commits or two looks.
_SHARE = 8
_TICK = 0.5
# For so long what has come is taken without a look at anything else.
_BREATH = 0.25
# A commit on a slow disk may take long; what takes longer than this will not end.
STUCK_SECONDS = 300.0
_FENCE_SECONDS = 10.0
_ACK_WAIT = 60.0
_AGAIN_FIRST, _AGAIN_MOST = 0.2, 5.0
_OWNER_SECONDS = 2.0
# Another partition commits in less, unless its disk is slow or it waits as well.
_TURN_SECONDS = 1.5
_CONTESTED = "%s is written by another partition too: its host publishes to both, and its lines are in no order"
# Of each host. As long as the stream has bytes of a life they may come again, as when it is read from its beginning.
LIVES_REMEMBERED = 16384

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Shared:
    """What a worker's readers have in common."""

    settings: ConsumerSettings
    broker: Broker
    root: Root
    ledger: Ledger
    tally: Tally
    meters: ConsumerMeters
    stopping: asyncio.Event
    descriptors: int
    pull_bytes: int
    large_pulls: asyncio.Semaphore


class Reader:
    """One partition. run() until it is told to stop; position is what is committed, once that is known."""

    def __init__(self, shared: Shared, number: int) -> None:
        self.number = number
        self.position: Position | None = None
        # How many messages are behind the last one that was delivered, and the time of the first that was not committed
        # (ns), while there is one.
        self.pending = 0
        self.uncommitted = 0
        self.uncommitted_since: int | None = None
        self._shared = shared
        self._settings = settings = shared.settings
        self._ledger = shared.ledger
        self._tally = shared.tally
        self._stream = partition_stream(settings.stream or "", number)
        self._subject = partition_subject(settings.prefix, number)
        self._trimmer = Trimmer(shared.ledger, self._stream, settings.group)
        self._trimmer.held_back = Rarely(logger.warning)
        self._trimming: asyncio.Task[None] | None = None
        self._take_over = settings.take_over
        self._complain = Rarely(logger.warning)
        self._no_room = False
        self.contested = Contested()
        self._began_on: Link | None = None
        # When it came round last; None while it waits for a connection, which may take for ever.
        self.turned_at: float | None = None

    def stuck(self, now: float) -> bool:
        """Whether it has not come round for so long that something hangs."""
        return self.turned_at is not None and now - self.turned_at > STUCK_SECONDS

    async def run(self) -> None:
        """Read for ever; on return all that was in hand is committed."""
        lock: int | None = None
        again = _AGAIN_FIRST
        try:
            while not self._shared.stopping.is_set():
                self.turned_at = time.monotonic()
                if lock is None:
                    lock = self._lock()
                if lock is None:
                    await self._sleep(_OWNER_SECONDS)
                    continue
                began = time.monotonic()
                pause = await self._try()
                again = _AGAIN_FIRST if time.monotonic() - began > _AGAIN_MOST else min(again * 2, _AGAIN_MOST)
                await self._sleep(max(pause, again) * random.uniform(0.5, 1.0))
        finally:
            if lock is not None:
                os.close(lock)

    def _lock(self) -> int | None:
        try:
            lock = self._ledger.lock(self._stream)
        except OSError as error:
            self._no_room = True
            self._complain("Cannot write to %s: %s; waiting", printable(self._settings.directory), error.strerror)
            return None
        if lock is None:
            self._complain("Waiting for another consumer on this host, which reads %s", self._stream)
        return lock

    async def _try(self) -> float:
        """One session, to its end; how long to wait at least before the next one."""
        link = await self._link()
        if link is None:
            return 0.0
        session = _Session(self, link)
        try:
            await session.run()
            self._complain.forget()
        except ConnectionLost:
            pass
        except NotOurs as owner:
            self._complain("Waiting for %s to release p%d", owner, self.number)
            return _OWNER_SECONDS
        except OutOfStep as error:
            self._complain("Reading %s again from behind what is committed: %s", self._stream, error)
        except Lost as file:
            self._complain("Reading %s again: another partition has taken %s over", self._stream, file)
        except BrokerError as error:
            self._complain("Waiting for stream %s: %s", self._stream, _explained(error))
            return 1.0
        except OSError as error:
            self._no_room = True
            directory = printable(self._settings.directory)
            reason = error.strerror or str(error)
            if isinstance(error.filename, (str, bytes)):
                reason += ": " + printable(os.fsdecode(error.filename))
            self._complain("Cannot write to %s: %s; waiting", directory, reason)
            return 1.0
        finally:
            await session.close()
            self.position = None
        return 0.0

    async def _link(self) -> Link | None:
        """The live link, or None when it is time to stop."""
        self.turned_at = None
        linking = asyncio.ensure_future(self._shared.broker.link())
        stopping = asyncio.ensure_future(self._shared.stopping.wait())
        try:
            await asyncio.wait({linking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return linking.result() if linking.done() and not stopping.done() else None
        finally:
            self.turned_at = time.monotonic()
            linking.cancel()
            stopping.cancel()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._shared.stopping.wait(), seconds)

    def lag(self) -> tuple[int, float] | None:
        """How many messages are not committed, and the age of the oldest in seconds; None while none is read."""
        if self.position is None:
            return None
        since = self.uncommitted_since
        return self.pending + self.uncommitted, 0.0 if since is None else max(0.0, time.time() - since / 1e9)

    def began(self, link: Link) -> None:
        """Messages come. Without room on the disk that is tried every few seconds, and nothing new."""
        if link is not self._began_on or not self._no_room:
            logger.info("Waiting for messages on subject %s @ %s", self._subject, link.url)
        self._began_on = link

    def wrote(self) -> None:
        """There is room on the disk."""
        if self._no_room:
            self._no_room = False
            logger.warning("Writing to %s again", printable(self._settings.directory))


class _Session:
    """From the ledger's position on, until something goes wrong."""

    def __init__(self, reader: Reader, link: Link) -> None:
        shared = reader._shared
        self._reader = reader
        self._shared = shared
        self._settings = shared.settings
        self._ledger = shared.ledger
        self._tally = shared.tally
        self._meters = shared.meters
        self._label = str(reader.number)
        self._stream = reader._stream
        self._link = link
        self._js = JetStream(link)
        directory = os.path.abspath(shared.settings.directory)
        self._me = Archive(shared.ledger.id, shared.settings.host, directory)
        self._vault = Vault(
            shared.root,
            shared.ledger,
            self._stream,
            self._unwritten,
            shared.descriptors,
            shared.settings.compress,
            reader.contested,
        )
        self._intake = Intake(
            whole_lines=not shared.settings.output.has_source,
            packed=shared.settings.compress is not None,
            recall=self._recall,
            lives=LIVES_REMEMBERED,
        )
        self._addresses = Addresses(shared.settings.prefix, shared.settings.output)
        self._time = SteadyTime()
        self._holes: list[Hole] = []
        self._commit_bytes = COMMIT_BYTES
        self._trim_bytes = TRIM_BYTES
        self._trimmed_at = 0.0
        self._untrimmed = 0
        self._commit_at: float | None = None
        self._delivery = 0
        self._reply = ""
        self._working: asyncio.Future[Any] | None = None

    async def run(self) -> None:
        """Raises BrokerError, Lost and OSError; returns when it is time to stop."""
        if self._link.version < OLDEST_SERVER and self._link.version > (0, 0, 0):
            raise NoResponders("nats-server %d.%d.%d is too old: durable mode needs 2.10" % self._link.version)
        info = await self._js.stream_info(self._stream)
        max_bytes = int(info["config"].get("max_bytes", -1))
        if max_bytes > 0:
            self._commit_bytes = min(COMMIT_BYTES, max(1, max_bytes // _SHARE))
            self._trim_bytes = min(TRIM_BYTES, max(1, max_bytes // _SHARE))
        position = await self._claim(info)
        if self._differs(info, position) or not await self._is_there(position):
            position = await self._begin_epoch(position)
        # From here on all trimmers take this position for what the group has.
        await self._make_durable(position)
        shared = self._shared
        pull = Pull(self._link, self._stream, self._settings.group, shared.pull_bytes, shared.large_pulls)
        await pull.start()
        try:
            first = await self._pass_fence(pull, position) if position.sequence else []
            self._vault.cut_back()
            self._position = self._reader.position = position
            self._reader.uncommitted, self._reader.uncommitted_since = 0, None
            self._time = SteadyTime(position.latest)
            self._reader.began(self._link)
            await self._read(pull, first)
        finally:
            await pull.close()

    async def close(self) -> None:
        """Let go of everything; what a thread is doing is waited for."""
        if self._working is not None:
            await asyncio.wait({self._working})
        self._vault.close()

    async def _claim(self, info: dict[str, Any]) -> Position:
        """Where to begin, if the partition is ours, or nobody's. Raises NotOurs."""
        reader, durable = self._reader, None
        try:
            durable = await self._js.consumer_info(self._stream, self._settings.group)
        except ApiError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise
        known = self._ledger.position(self._stream)
        found = start(self._me, durable, known, str(info["created"]), reader._take_over)
        if is_old_copy(self._me, durable, known, info):
            logger.warning(
                "%s: the ledger is an old copy; what comes is compared with files it does not know", self._stream
            )
            self._ledger.doubt()
        if found.why:
            logger.warning("%s: %s", self._stream, found.why)
        if found.new:
            await self._show_up(found.position)
        if found.told:
            self._ledger.begin(self._stream, found.position, forget_lives=not found.new and found.position != known)
        reader._take_over = False
        return found.position

    async def _show_up(self, position: Position) -> None:
        """A new group waits until every trimmer has seen that there is one more."""
        if durables(await self._js.consumers(self._stream)).keys() - {self._settings.group}:
            await self._make_durable(position)
            await self._reader._sleep(TRIM_INTERVAL)

    def _differs(self, info: dict[str, Any], position: Position) -> str:
        """Why the stream is not the one that was read, or not any more; empty if nothing speaks against it."""
        state = info["state"]
        if position.created != info["created"]:
            return "it was made anew"
        if position.sequence > int(state["last_seq"]):
            return "it ends at %d, and %d was committed" % (state["last_seq"], position.sequence)
        if position.sequence and (int(state["first_seq"]) > position.sequence or not int(state["messages"])):
            return "it begins at %d, and %d was committed" % (state["first_seq"], position.sequence)
        return ""

    async def _is_there(self, position: Position) -> bool:
        """Whether the message that was committed last is still the same one. The fence finds that out too, but then the
        durable says already that all before it has been read."""
        if not position.sequence or not position.stamp:
            return True
        return await self._js.first_message(self._stream, position.sequence) == (position.sequence, position.stamp)

    async def _begin_epoch(self, position: Position) -> Position:
        info = await self._js.stream_info(self._stream)
        state = info["state"]
        first = int(state["first_seq"])
        until = max(position.stamp, position.latest, position.replay_until)
        if position.created == info["created"] and position.sequence < first <= int(state["last_seq"]) + 1:
            # Nothing is used twice here: an age limit or an operator has removed messages.
            until = position.replay_until
            if first > position.sequence + 1:
                self._hole(Hole("", b"", "", position.sequence + 1, first))
        elif position.sequence:
            logger.warning(
                "Stream %s is not what it was: %s; reading it from its first message",
                self._stream, self._differs(info, position) or "message %d is another one" % position.sequence,
            )  # fmt: skip
            if position.created != info["created"] and first > 1:
                self._hole(Hole("", b"", "", 1, first))
        epoch = Position(str(info["created"]), 0, 0, position.latest, until)
        # What other groups had committed was of the other numbers.
        self._ledger.begin_epoch(self._stream, epoch, await self._in_thread(self._vault.tails))
        return epoch

    async def _make_durable(self, position: Position) -> None:
        """The group's durable, anew, to begin with the committed message."""
        group = self._settings.group
        await self._js.delete_consumer(self._stream, group)
        config: dict[str, Any] = {
            "name": group,
            "durable_name": group,
            "description": "how far the group %s has archived this partition" % group,
            "deliver_policy": "all",
            "ack_policy": "all",
            "ack_wait": int(_ACK_WAIT * 1e9),
            "max_ack_pending": -1,
            "replay_policy": "instant",
            "metadata": self._me.metadata,
        }
        if position.sequence:
            config.update(deliver_policy="by_start_sequence", opt_start_seq=position.sequence)
        made = await self._js.create_consumer(self._stream, config)
        if made["delivered"]["consumer_seq"]:
            # nats-server found it on disk, where a stream's folder was removed by hand. The next session deletes both.
            raise OutOfStep("the broker gave the new durable %s the position of an old one" % group)

    async def _pass_fence(self, pull: Pull, position: Position) -> list[Message]:
        """The committed message itself must come first; what came with it."""
        deadline = time.monotonic() + _FENCE_SECONDS
        while True:
            messages = await pull.messages(_TICK)
            if messages:
                break
            if time.monotonic() > deadline or self._shared.stopping.is_set():
                raise OutOfStep("the committed message %d does not come" % position.sequence)
        at = _place(messages[0])
        if at.sequence != position.sequence or position.stamp not in (0, at.stamp):
            await self._begin_epoch(position)
            raise OutOfStep("message %d came, and not the committed %d" % (at.sequence, position.sequence))
        self._delivery = at.delivery
        await self._link.send(messages[0].reply, b"+ACK")
        return messages[1:]

    async def _read(self, pull: Pull, messages: list[Message]) -> None:
        while True:
            breath = time.monotonic() + _BREATH
            for msg in messages:
                if time.monotonic() > breath:
                    # However dear a message is, and if it brings nothing: others have their turn, and a stop is seen.
                    await asyncio.sleep(0)
                    breath = time.monotonic() + _BREATH
                    if self._shared.stopping.is_set():
                        break
                at = _place(msg)
                await self._step(at)
                self._take(msg, at)
                if self._vault.uncommitted >= self._commit_bytes or self._vault.crowded:
                    await self._commit()
            with self._cut_back_if_full():
                self._vault.flush()
            now = self._reader.turned_at = time.monotonic()
            stopping = self._shared.stopping.is_set()
            if self._commit_at is not None and (now >= self._commit_at or stopping):
                await self._commit()
            if stopping:
                return
            self._trim_sometimes(now)
            self._vault.close_idle(now)
            due = _TICK if self._commit_at is None else min(_TICK, max(0.0, self._commit_at - time.monotonic()))
            messages = await pull.messages(due)

    def _take(self, msg: Message, at: Place) -> None:
        old = at.stamp <= self._position.replay_until
        self._position = advanced(self._position, at.sequence, at.stamp)
        self._reply = msg.reply
        reader = self._reader
        reader.pending = at.pending
        reader.uncommitted += 1
        if reader.uncommitted_since is None:
            reader.uncommitted_since = at.stamp
        if self._commit_at is None:
            self._commit_at = time.monotonic() + COMMIT_SECONDS
        try:
            host = self._addresses.host(self._reader.number, msg.subject)
            span = decode(msg.headers, len(msg.data)) if msg.headers else None
            if span is None and not self._settings.accept_plain:
                raise WireError("no headers, and SHIPPER_PLAIN=reject")
            taken = None if span is None else self._intake.take(host, span, received(span, msg.data))
        except WireError as error:
            self._tally.count(tally.REJECTED, error.reason)
            self._meters.rejected.add(1, error.reason)
            self._tally.complain("Rejecting messages on %s: %s", msg.subject, error.reason)
            return
        data: Payload | Packed
        if span is None or taken is None:
            if old:
                self._tally.count(tally.REPEATED, host, len(msg.data) + 1)
                self._meters.duplicates.add(len(msg.data) + 1, self._label)
                return
            source, data, missing = None, msg.data + b"\n", 0
        else:
            source = span.source
            data, missing, repeated, cut = taken
            if missing:
                self._hole(Hole(host, span.source, span.life, span.begin - missing, span.begin))
            if repeated:
                self._tally.count(tally.REPEATED, host, repeated)
                self._meters.duplicates.add(repeated, self._label)
            if cut:
                self._tally.count(tally.CUT, host)
        if data:
            # The stream's time, and only of what is written: so two groups choose the same file.
            self._addresses.at(self._time.at(at.stamp))
            name, period = self._addresses.name(source), self._addresses.period
            self._vault.append(host, name, period, at.stamp, data, missing if self._settings.output.has_source else 0)

    async def _step(self, at: Place) -> None:
        """It must be exactly the next one. A jump in the stream's numbers is a hole where the broker says the same when
        it is asked directly."""
        if at.times != 1 or at.delivery != self._delivery + 1:
            raise OutOfStep("message %d came as delivery %d, after %d" % (at.sequence, at.delivery, self._delivery))
        self._delivery = at.delivery
        expected = self._position.sequence + 1
        if self._position.sequence and at.sequence != expected:
            there = await self._js.first_message(self._stream, expected)
            if there is None or there[0] != at.sequence:
                raise OutOfStep("message %d came after %d" % (at.sequence, expected - 1))
            self._hole(Hole("", b"", "", expected, at.sequence))

    def _hole(self, hole: Hole) -> None:
        self._holes.append(hole)
        if hole.host:
            self._tally.count(tally.MISSING, hole.host, hole.last - hole.first)
            self._meters.holes.add(hole.last - hole.first, self._label)
        else:
            logger.warning("Missing messages %d to %d of stream %s", hole.first, hole.last - 1, self._stream)

    async def _commit(self) -> None:
        """Make what was taken last, and then tell the broker."""
        with self._cut_back_if_full():
            self._vault.flush()
            await self._write_contested()
        lives, forgotten = self._intake.changes()
        commit = Commit(
            position=self._position._replace(latest=self._time.latest),
            files=self._vault.rows(),
            lives=[LifeRow(host, *known) for host, known in lives],
            forgotten=forgotten,
            holes=list(self._holes),
        )

        def work() -> None:
            self._vault.sync()
            self._ledger.commit(self._stream, commit)

        size = self._vault.uncommitted
        await self._in_thread(work)
        self._vault.settle()
        self._intake.settle()
        self._holes.clear()
        self._reader.wrote()
        self._commit_at = None
        self._untrimmed += size
        reader = self._reader
        reader.position = commit.position
        self._meters.committed_bytes.add(size, self._label)
        self._meters.committed_messages.add(reader.uncommitted, self._label)
        self._meters.last_commit.set(time.time(), self._label)
        reader.uncommitted, reader.uncommitted_since = 0, None
        await self._link.send(self._reply, b"+ACK")

    async def _write_contested(self) -> None:
        """What other partitions write too comes last, and is committed at once."""
        for left in self._vault.left():
            while (fd := self._vault.write_contested(left)) is not None:
                self._reader._complain(_CONTESTED, left.shown)
                turn = Turn(fd)
                if not await turn.within(_TURN_SECONDS):
                    # Each may wait for what the other has: from now on both have nothing before what they wait for.
                    self._vault.contest_all()
                    if not await turn.within(_TURN_SECONDS):
                        raise OutOfStep("another partition does not commit %s" % left.shown)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        """What is begun is brought to its end, also when we are cancelled meanwhile: see close()."""
        self._working = working = asyncio.get_running_loop().run_in_executor(None, work)
        result = await asyncio.shield(working)
        self._working = None
        return result

    @contextlib.contextmanager
    def _cut_back_if_full(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._vault.take_back()
            raise

    def _trim_sometimes(self, now: float) -> None:
        reader = self._reader
        if reader._trimming is not None and not reader._trimming.done():
            return
        if now - self._trimmed_at >= TRIM_INTERVAL or self._untrimmed >= self._trim_bytes:
            self._trimmed_at, self._untrimmed = now, 0
            assert reader.position is not None
            position = reader.position
            reader._trimming = asyncio.ensure_future(self._trim(position.sequence, position.created))

    async def _trim(self, committed: int, created: str) -> None:
        try:
            await self._reader._trimmer.trim(self._js, committed, created)
        except (BrokerError, OSError) as error:
            if not isinstance(error, ConnectionLost):
                self._reader._complain("Cannot trim stream %s: %s; trying again", self._stream, error)

    def _recall(self, host: str) -> list[Known]:
        return [Known(row.life, row.next, row.aside) for row in self._ledger.lives(self._stream, host)]

    def _unwritten(self, host: str, path: str, size: int, error: OSError) -> None:
        self._tally.count(tally.UNWRITTEN, host, size)
        self._tally.complain("Cannot write %s: %s", path, error.strerror or str(error))


def _place(msg: Message) -> Place:
    at = place(msg.reply)
    if at is None:
        raise OutOfStep("a message that is not the stream's: its reply is %r" % msg.reply[:100])
    return at


def _explained(error: BrokerError) -> str:
    if isinstance(error, ApiError) and error.err_code == STREAM_NOT_FOUND:
        return "there is none; make it with `shipper streams`"
    if isinstance(error, NoResponders) and "JS.API" in str(error):
        return "the broker has no JetStream, or not at present"
    return str(error)
