# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet of a torture: a real server, our programs as processes behind lines that can be cut, writers and disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import nats
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from tests.support import NatsServer, Shipper, run_shipper, wait_for

from .ask import ask
from .compare import OUTPUT, Checker, by_source, list_archive
from .disk import Disk
from .proxy import Line, Lines, free_port
from .sabotage import EXIT_NO_TARGET
from .schedule import GROUPS, SERVER, Host, Layout
from .writer import Writer

PREFIX = "shipper"
STREAM = "torture"
STOP_SECONDS = 12.0
"""How long a program may take to end after SIGTERM."""
_ARCHIVE_ROOM = 96 * 1024 * 1024
_STATE_ROOM = 512 * 1024
_LARGE_MESSAGE = 512 * 1024
# Before a program has installed its handlers SIGTERM ends it as it ends any process.
_BEFORE_HANDLERS = -signal.SIGTERM


class PromiseBroken(Exception):
    """Something that durable mode promises does not hold."""


class Trouble(Exception):
    """The torture itself does not work."""


class Program(Shipper):
    """One of our programs, behind its own line to the server. up says whether it is to run."""

    def __init__(
        self, name: str, command: str, env: Mapping[str, str], log: Path, line: Line, sabotage: str = ""
    ) -> None:
        super().__init__(command, {**env, "NATS_URL": "nats://127.0.0.1:%d" % line.port}, log)
        if sabotage:
            at = self._arguments.index("shipper_runtime")
            self._arguments[at : at + 1] = ["tests.torture.sabotage", sabotage]
        self.name = name
        self.line = line
        self.up = False
        self._early = False

    def start(self) -> Program:
        with open(self.log_path, "ab") as log:
            log.write(b"-- start\n")
        super().start()
        self.up = True
        return self

    def kill(self) -> None:
        self.up = False
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def terminate(self) -> None:
        """Ask it to end."""
        self.up = False
        self._early = not _catches(self.pid, signal.SIGTERM)
        self.send(signal.SIGTERM)

    def ended(self) -> bool:
        """After terminate(): whether it has ended. Raises PromiseBroken where it did not end well."""
        assert self.process is not None
        code = self.process.poll()
        if code is None or code == 0 or (code == _BEFORE_HANDLERS and self._early):
            return code is not None
        raise PromiseBroken("%s ended with code %d after SIGTERM" % (self.name, code))

    def check(self) -> None:
        """Raises PromiseBroken where it has ended by itself."""
        code = self.process.poll() if self.up and self.process is not None else None
        if code == EXIT_NO_TARGET:
            raise Trouble("%s: %s" % (self.name, self.log.strip().rpartition("\n")[2]))
        if code is not None:
            raise PromiseBroken("%s has ended by itself, with code %d" % (self.name, code))


def _catches(pid: int, number: int) -> bool:
    """Whether a process has installed a handler for this signal: proc(5), SigCgt."""
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


class Server(NatsServer):
    """The server; it can be asked to end without waiting for it."""

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None


class _Safe:
    """Whether so many bytes of a source are in both archives; asked by its writer, in the writer's thread."""

    def __init__(self, world: World, source: str, truth: Path) -> None:
        self._world = world
        self._source = source
        self._checkers = [Checker(world.directory(group), truth) for group in GROUPS]

    def __call__(self, length: int) -> bool:
        name = self._world.archive_name(self._source)
        for checker in self._checkers:
            # Files may come and go under the eyes of who looks.
            with contextlib.suppress(FileNotFoundError):
                below = list_archive((checker.directory / name).parent)
                looks = {os.path.join(os.path.dirname(name), file): look for file, look in below.items()}
                if checker.compare(by_source(looks).get(name, []), looks, length) == "equal":
                    continue
            return False
        return True


class World:
    """Everything that is tortured, below folder: begin() it, and end() it whatever happened."""

    def __init__(
        self, folder: Path, seed: str, fleet: Layout, *, core: bool = False, no_disks: str = "", sabotage: str = ""
    ) -> None:
        self.folder = folder
        self.fleet = fleet
        self.core = core
        self.no_disks = no_disks
        self.writing = False
        self.disks = {
            name: Disk(folder / "disks" / name, _ARCHIVE_ROOM if name.startswith("archive") else _STATE_ROOM)
            for name in fleet.disks
        }
        self.programs: dict[str, Program] = {}
        self._seed = seed
        self._sabotage = sabotage
        self._ending = contextlib.ExitStack()
        self._truth = folder / "written"
        self._logs = folder / "logs"
        self._truth.mkdir(parents=True)
        self._logs.mkdir()
        self.writers = {source: self._writer(source) for source in fleet.sources}
        store = 'jetstream { store_dir: "%s", sync_interval: always, max_file_store: 4GiB }\n' % self.store
        self.server = Server(folder / "nats", "" if core else store)

    def _writer(self, source: str) -> Writer:
        truth = self._truth / source.replace("/", "-")
        path = self.folder / "hosts" / source
        return Writer(path, truth, "%s:%s" % (self._seed, source), _Safe(self, source, truth))

    @property
    def store(self) -> Path:
        """The server's."""
        return self.folder / "store"

    def directory(self, group: str) -> Path:
        """A group's archive."""
        return self.disks["archive-%s" % group].folder / "files"

    def stream(self, partition: int) -> str:
        return "%s-p%d" % (STREAM, partition)

    def begin(self) -> None:
        """Start everything, the readers first; the writers hold. Raises PromiseBroken where that does not work."""
        for disk in self.disks.values():
            self.no_disks = self.no_disks or disk.mount()
        lines = self._ending.enter_context(Lines())
        self.server.port = free_port()
        self._ending.enter_context(self.server)
        if not self.core:
            self._make_streams()
        for group in GROUPS:
            for name, partitions in zip(self.fleet.consumers(group), self.fleet.workers[group]):
                self._add_consumer(group, name, partitions, lines)
        self._await_readers()
        for writer in self.writers.values():
            writer.start()
        for host in self.fleet.hosts:
            self._add_producer(host, lines)

    def end(self, keep: bool) -> None:
        """End everything; what lies on disks of our own is copied into the folder where it is to be kept."""
        for writer in self.writers.values():
            writer.end()
        self._ending.close()
        for disk in self.disks.values():
            disk.unmount(keep)

    def go(self) -> None:
        """Let the writers write."""
        self.writing = True
        for writer in self.writers.values():
            writer.go()

    def hold(self) -> None:
        """Have the writers hold still, each behind a whole line, when they have done what was ordered."""
        for writer in self.writers.values():
            writer.hold()
        self.writing = False

    def clean_up(self) -> None:
        """Remove old rotated files, all of which has been archived."""
        for writer in self.writers.values():
            writer.clean_up()

    @property
    def written(self) -> int:
        """Bytes, so far."""
        return sum(writer.length for writer in self.writers.values())

    @property
    def logs(self) -> dict[str, Path]:
        """By the name of who writes it."""
        found = {name: program.log_path for name, program in self.programs.items()}
        return {**found, SERVER: self.folder / "nats" / "nats.log"}

    def _make_streams(self) -> None:
        env = {
            "NATS_URL": self.server.url,
            "SHIPPER_SUBJECT": PREFIX,
            "SHIPPER_STREAM": STREAM,
            "SHIPPER_PARTITIONS": str(self.fleet.partitions),
            "SHIPPER_STREAM_MAX_BYTES": self.fleet.max_bytes,
            "SHIPPER_STREAM_DUPLICATES": self.fleet.duplicates,
        }
        done = run_shipper("streams", env=env)
        if "NotImplementedError" in done.stderr:
            print("`shipper streams` is not there yet: the streams are made with nats-py")
            asyncio.run(self._make_streams_without_us())
        elif done.returncode:
            raise PromiseBroken("shipper streams: %s" % (done.stdout + done.stderr).strip())

    async def _make_streams_without_us(self) -> None:
        connection = await nats.connect(self.server.url)
        for partition in range(self.fleet.partitions):
            await connection.jetstream().add_stream(
                StreamConfig(
                    name=self.stream(partition),
                    subjects=["%s.p%d.>" % (PREFIX, partition)],
                    retention=RetentionPolicy.LIMITS,
                    discard=DiscardPolicy.NEW,
                    storage=StorageType.FILE,
                    max_bytes=int(self.fleet.max_bytes[:-3]) * 1024 * 1024,
                    duplicate_window=float(self.fleet.duplicates[:-1])
                    * (60 if self.fleet.duplicates[-1] == "m" else 1),
                    allow_direct=True,
                )
            )
        await connection.close()

    def _add_producer(self, host: Host, lines: Lines) -> None:
        logs = self.folder / "hosts" / host.name
        env = {
            "HOSTNAME": host.name,
            "SHIPPER_PARTITIONS": str(self.fleet.partitions),
            "SHIPPER_FILE": str(logs / "*.log") if host.glob else ":".join(str(logs / file) for file in host.files),
            "SHIPPER_STATE": str(self.disks["state-%s" % host.name].folder / "positions"),
            "SHIPPER_COMPRESS": self._compress(host.name),
        }
        self._add_program(host.name, "producer", env, lines)

    def _add_consumer(self, group: str, name: str, partitions: tuple[int, ...], lines: Lines) -> None:
        env = {
            "SHIPPER_GROUP": group,
            "SHIPPER_READ_PARTITIONS": ",".join(str(number) for number in partitions),
            "SHIPPER_DIRECTORY": str(self.directory(group)),
            "SHIPPER_OUTPUT": OUTPUT,
            "SHIPPER_ROTATE": self.fleet.rotate,
            "SHIPPER_MAX_AGE": "52w",
            "SHIPPER_COMPRESS": self._compress(group),
        }
        self._add_program(name, "consumer", env, lines)

    def _add_program(self, name: str, command: str, env: dict[str, str], lines: Lines) -> None:
        env["SHIPPER_SUBJECT"] = PREFIX
        if not self.core:
            env["SHIPPER_STREAM"] = STREAM
        sabotage = self._sabotage if command == "consumer" else ""
        log = self._logs / ("%s.log" % name)
        self.programs[name] = Program(name, command, env, log, lines.line(self.server.port), sabotage)
        self._ending.enter_context(self.programs[name])

    def _compress(self, name: str) -> str:
        return "gzip" if name in self.fleet.compress and not self.core else "none"

    def _await_readers(self) -> None:
        """A group gets everything from the moment on when the streams know it."""
        try:
            wait_for(self._readers_are_there, 30)
        except AssertionError:
            raise PromiseBroken("not all consumers read within 30 s") from None

    def _readers_are_there(self) -> bool:
        self.check()
        if self.core:
            return all(
                "Waiting for messages on subject %s.p%d.>" % (PREFIX, number) in self.programs[name].log
                for group in GROUPS
                for name, numbers in zip(self.fleet.consumers(group), self.fleet.workers[group])
                for number in numbers
            )
        return all(set(self.durables(number)) >= set(GROUPS) for number in range(self.fleet.partitions))

    def durables(self, partition: int) -> list[str]:
        """The names of a stream's consumers."""
        answer = ask(self.server.port, "$JS.API.CONSUMER.NAMES.%s" % self.stream(partition))
        return list(answer.get("consumers") or [])

    def full_streams(self) -> int:
        """How many streams have no room for a large message."""
        full = 0
        with contextlib.suppress(OSError):
            for number in range(self.fleet.partitions):
                info = ask(self.server.port, "$JS.API.STREAM.INFO.%s" % self.stream(number), seconds=0.3)
                full += info["state"]["bytes"] + _LARGE_MESSAGE > info["config"]["max_bytes"]
        return full

    def committed(self) -> bool:
        """Whether the groups have acknowledged all that the streams have."""
        with contextlib.suppress(OSError):
            for number in range(self.fleet.partitions):
                for group in GROUPS:
                    info = ask(self.server.port, "$JS.API.CONSUMER.INFO.%s.%s" % (self.stream(number), group))
                    if info.get("num_pending", 1) or info.get("num_ack_pending", 1):
                        return False
            return True
        return False

    def forget(self, group: str, partition: int) -> bool:
        """Delete a group's durable; whether there was one."""
        try:
            answer = ask(self.server.port, "$JS.API.CONSUMER.DELETE.%s.%s" % (self.stream(partition), group))
        except OSError:
            return False
        return bool(answer.get("success"))

    def check(self) -> None:
        """Raises PromiseBroken where a program has ended by itself, Trouble where a writer has."""
        for program in self.programs.values():
            program.check()
        for writer in self.writers.values():
            if writer.error is not None:
                raise Trouble("the writer of %s failed" % writer.path) from writer.error

    def make_room(self) -> None:
        for disk in self.disks.values():
            if disk.mounted:
                disk.make_room()

    def archive_name(self, source: str) -> str:
        """What the names of a source's files in an archive begin with."""
        return "%s%s" % (source.partition("/")[0], self.writers[source].path)
