# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole fleet on this machine, for about a minute: six producers, two consumers, ten partitions, one nats-server.

The playbook logfleet.shipper.site deploys it, as it would deploy real hosts: each "host" is a folder, reached with the
local connection, its services run under supervisor. It is durable: JetStream keeps what is not archived yet. Real logs
of this machine are shipped where they lie, and each host has an application that keeps writing. Meanwhile a consumer
and the broker are killed, and the logs are rotated. Then every byte is compared.

Needs no root. All it makes is in one folder below /tmp, and is gone at the end, at Ctrl-C too.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))

from tests.support import NatsServer, clean_environment, wait_for  # noqa: E402  # the folder above is not on the path before

PRODUCERS = tuple("%s.example.net" % name for name in ("web1", "web2", "web3", "db1", "mail1", "git1"))
CONSUMERS = ("archive1.example.net", "archive2.example.net")
PARTITIONS = 10
SUBJECT = "shipper"
STREAM = "logs"
# Ten of these fit into what the broker may store.
STREAM_MOST = "64MiB"
BROKER = 'jetstream { store_dir: "%s", sync_interval: always, max_file_store: 1GB }\n'
CONSUMER_SERVICE = "shipper-consumer-1"
LOG_MOST_BYTES = 20_000_000
COMPARE_SECONDS = 60.0


class DemoError(Exception):
    """What went wrong, in one line or as the output of who knows."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the fleet running")
    parser.add_argument("--stop", metavar="FOLDER", type=Path, help="stop a fleet that was left running")
    options = parser.parse_args()
    if options.stop is not None:
        return stop(options.stop)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    # Sockets' paths may have 107 bytes, so not in whatever TMPDIR is.
    folder = Path(tempfile.mkdtemp(prefix="shipper-", dir="/tmp"))
    fleet = Fleet(folder)
    kept = False
    try:
        identical = show(fleet)
        kept = options.keep
        return 0 if identical else 1
    except (AssertionError, DemoError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        fleet.applications.stop()
        if kept:
            fleet.say_how_to_look()
        else:
            clean_up(folder)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def show(fleet: Fleet) -> bool:
    """The demo itself, top to bottom; whether all bytes arrived."""
    started = time.monotonic()
    fleet.start_nats()
    print("1. nats-server listens on %s; the fleet is below %s" % (fleet.nats.url, fleet.folder), flush=True)
    fleet.install_collection()
    fleet.write_inventory()
    fleet.applications.start()
    print("2. ansible-playbook logfleet.shipper.site", flush=True)
    fleet.playbook()
    print(
        "3. it has made the streams: shipper streams, on %s, says that there is nothing left to do"
        % short(CONSUMERS[0])
    )
    print_indented(fleet.shipper("streams", "--stream-max-bytes", STREAM_MOST))
    print("4. %d applications write, and it gets rough" % len(PRODUCERS), flush=True)
    fleet.wait_for_producers()
    fleet.wait_for_archive()
    make_trouble(fleet)
    print("5. the playbook again: nothing is to be changed", flush=True)
    changed = fleet.playbook()
    fleet.applications.stop()
    print("6. what was written and what was archived", flush=True)
    rows = fleet.compare(COMPARE_SECONDS)
    print_table(rows)
    identical = all(row.identical for row in rows)
    print("7. shipper status", flush=True)
    print_indented(fleet.status_when_committed())
    total = sum(row.bytes_archived for row in rows)
    print(
        "%s: %d bytes of %d files of %d hosts, after %.0f s; the second run changed %d"
        % (
            *("identical" if identical else "NOT identical", total, sum(row.files for row in rows), len(rows)),
            *(time.monotonic() - started, changed),
        )
    )
    if changed:
        raise DemoError("the second run should have changed nothing; see its log: playbook-2.log")
    return identical


def make_trouble(fleet: Fleet) -> None:
    """Kill a consumer and the broker, and rotate the logs while the broker is away."""
    victim = CONSUMERS[0]
    consumer = fleet.kill_consumer(victim)
    print("   kill -9 %-7d %s's consumer" % (consumer, short(victim)), flush=True)
    broker = fleet.nats.pid
    fleet.nats.kill(signal.SIGKILL)
    print("   kill -9 %-7d nats-server" % broker, flush=True)
    fleet.applications.rotate()
    print("   the logs are rotated: app.log is app.log.1 now", flush=True)
    fleet.start_nats()
    print("   nats-server runs again, as process %d" % fleet.nats.pid, flush=True)
    again = fleet.wait_for_consumer(victim, consumer)
    print("   %s's consumer runs again, as process %d: supervisor saw to it" % (short(victim), again), flush=True)


@dataclass(frozen=True)
class Row:
    """What became of a host's logs."""

    host: str
    partition: int
    subject: str
    consumer: str
    files: int
    bytes_in: int
    bytes_archived: int
    identical: bool


def print_table(rows: list[Row]) -> None:
    table: list[tuple[object, ...]] = [
        ("host", "partition", "subject", "consumer", "bytes in", "bytes archived", "identical"),
        *(
            (
                *(row.host, row.partition, row.subject, row.consumer),
                row.bytes_in,
                row.bytes_archived,
                yes(row.identical),
            )
            for row in rows
        ),
    ]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*table)]
    for line in table:
        cells = (
            str(cell).rjust(width) if isinstance(cell, int) else str(cell).ljust(width)
            for cell, width in zip(line, widths)
        )
        print("   " + "  ".join(cells))


def print_indented(text: str) -> None:
    print("".join("   %s\n" % line for line in text.splitlines()), end="", flush=True)


def short(host: str) -> str:
    return host.partition(".")[0]


def yes(identical: bool) -> str:
    return "yes" if identical else "NO"


class Applications:
    """A service on each host that writes a line now and then, and whose log can be rotated."""

    def __init__(self, logs: dict[str, Path]) -> None:
        self._logs = logs
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for log in self._logs.values():
            log.parent.mkdir(parents=True)
            log.touch()
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.2):
            number += 1
            with self._lock:
                for host, log in self._logs.items():
                    with log.open("ab") as file:
                        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                        file.write(b"%s %s app: request %d served\n" % (stamp.encode(), host.encode(), number))

    def rotate(self) -> None:
        """As logrotate does it: rename the log and make a new one."""
        with self._lock:
            for log in self._logs.values():
                log.rename(log.with_name(log.name + ".1"))
                log.touch()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()


class Fleet:
    """The hosts' folders, and what is done with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nats = NatsServer(folder / "nats", BROKER % (folder / "nats" / "jetstream"))
        self.applications = Applications({host: self._application_log(host) for host in PRODUCERS})
        self._logs = machine_logs()
        self._runs = 0

    def host(self, name: str) -> Path:
        return self.folder / short(name)

    def _application_log(self, host: str) -> Path:
        return self.host(host) / "var" / "log" / "app.log"

    def _sources(self, host: str) -> list[Path]:
        """What a host ships: its application's log, and its share of this machine's."""
        return [self._application_log(host), *self._logs[PRODUCERS.index(host) :: len(PRODUCERS)]]

    @property
    def _fleet_env(self) -> Path:
        return self.folder / "fleet.env"

    def _program(self, host: str) -> Path:
        return self.host(host) / "usr" / "local" / "bin" / "shipper"

    def _archive(self, consumer: str) -> Path:
        return self.host(consumer) / "srv" / "archive"

    def start_nats(self) -> None:
        """Start it, on the same port and with what it has stored, if it ran before."""
        self.nats.start()
        (self.folder / "nats.pid").write_text(str(self.nats.pid))

    def install_collection(self) -> None:
        """Build the collection and install it, as an operator would."""
        (self.folder / "ansible.cfg").touch()
        self._run([str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", "dist", str(ROOT)])
        (tarball,) = (self.folder / "dist").iterdir()
        self._run(
            [
                *(str(BIN / "ansible-galaxy"), "collection", "install", "--offline"),
                *("--collections-path", str(self.folder / "collections"), str(tarball)),
            ]
        )

    def write_inventory(self) -> None:
        """JSON is YAML."""
        consumers = {
            name: {"consumer_root": str(self.host(name)), "consumer_directory": str(self._archive(name))}
            for name in CONSUMERS
        }
        producers = {
            name: {
                "producer_root": str(self.host(name)),
                "producer_files": [str(path) for path in self._sources(name)],
            }
            for name in PRODUCERS
        }
        user = getpass.getuser()
        inventory = {
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                    "shipper_nats_url": self.nats.url,
                    "shipper_subject": SUBJECT,
                    "shipper_stream": STREAM,
                    "shipper_stream_max_bytes": STREAM_MOST,
                    "shipper_partitions": PARTITIONS,
                    "shipper_service_manager": "supervisor",
                    # The Python that .venv was made from: hosts need nothing else.
                    "shipper_python": os.path.realpath(sys.executable),
                    "consumer_output": "{source}-%Y%m%d",
                    "consumer_user": user,
                    "producer_user": user,
                },
                "children": {
                    "shipper_consumers": {"hosts": consumers},
                    "shipper_producers": {"hosts": producers},
                },
            }
        }
        (self.folder / "inventory.yml").write_text(json.dumps(inventory, indent=2) + "\n")
        # What an operator has in the environment, for the commands that are about the whole fleet.
        self._fleet_env.write_text(
            "NATS_URL=%s\nSHIPPER_SUBJECT=%s\nSHIPPER_STREAM=%s\nSHIPPER_PARTITIONS=%d\n"
            % (self.nats.url, SUBJECT, STREAM, PARTITIONS)
        )

    def playbook(self) -> int:
        """Run the playbook and print its recap; how many tasks have changed something."""
        self._runs += 1
        log = self.folder / ("playbook-%d.log" % self._runs)
        started = time.monotonic()
        output = self._run(
            [
                *(str(BIN / "ansible-playbook"), "-i", str(self.folder / "inventory.yml"), "logfleet.shipper.site"),
                # One, which is checked, and then all others.
                *("-e", json.dumps({"shipper_serial": [1, "100%"]})),
            ]
        )
        log.write_text(output)
        recap = output.partition("PLAY RECAP")[2].splitlines()[1:]
        for line in filter(str.strip, recap):
            print("   " + line, flush=True)
        print("   in %.0f s" % (time.monotonic() - started), flush=True)
        return sum(int(number) for line in recap for number in re.findall(r"changed=(\d+)", line))

    def shipper(self, command: str, *arguments: str) -> str:
        """Run a command that is about the whole fleet, with the program of the first archive host; what it printed."""
        return self._run([str(self._program(CONSUMERS[0])), command, "--env-file", str(self._fleet_env), *arguments])

    def wait_for_archive(self) -> None:
        """Until something is archived where a consumer is going to be killed."""
        archive = self._archive(CONSUMERS[0])
        wait_for(lambda: any((archive / host).is_dir() for host in PRODUCERS), 30, "files below %s" % archive)

    def kill_consumer(self, host: str) -> int:
        """Kill a consumer's process; its id."""
        pid = int(wait_for(lambda: self._running(host), 30, "%s of %s" % (CONSUMER_SERVICE, host)))
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_consumer(self, host: str, before: int) -> int:
        """Until supervisor has another process of it running; its id."""

        def another() -> int:
            pid = self._running(host)
            return pid if pid != before else 0

        return int(wait_for(another, 30, "%s of %s" % (CONSUMER_SERVICE, host)))

    def _running(self, host: str) -> int:
        """The process that supervisor says runs, or 0."""
        done = subprocess.run(
            [*self._supervisorctl(host), "status", CONSUMER_SERVICE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        found = re.search(r" RUNNING +pid (\d+)", done.stdout)
        return int(found.group(1)) if found else 0

    def _supervisorctl(self, host: str) -> list[str]:
        configuration = self.host(host) / "etc" / "shipper" / "supervisor" / "supervisord.conf"
        return [str(BIN / "supervisorctl"), "-c", str(configuration)]

    def status_when_committed(self) -> str:
        """What ``shipper status`` prints once nothing is behind: what is readable is committed a second later."""
        deadline = time.monotonic() + 10
        while True:
            rows = json.loads(self.shipper("status", "--json"))
            if not any(row["lag_messages"] for row in rows) or time.monotonic() > deadline:
                return self.shipper("status")
            time.sleep(0.2)

    def wait_for_producers(self) -> None:
        """Until each has begun its files: what was rotated away before a producer ever ran is not its business."""
        for host in PRODUCERS:
            log = self.host(host) / "var" / "log" / "shipper" / "shipper-producer.log"
            begun = "Publishing %s to " % self._application_log(host)
            wait_for(lambda: log.exists() and begun in log.read_text(), 30, "%r in %s" % (begun, log))  # noqa: B023

    def compare(self, seconds: float) -> list[Row]:
        """The table: as soon as all is identical, or when the time is over."""
        names = self._run(
            [
                *(str(self._program(PRODUCERS[0])), "partition", "--json"),
                *("--env-file", str(self._fleet_env), *PRODUCERS),
            ]
        )
        deadline = time.monotonic() + seconds
        while True:
            rows = [self._row(**entry) for entry in json.loads(names)]
            if all(row.identical for row in rows) or time.monotonic() > deadline:
                return rows
            time.sleep(0.5)

    def _row(self, host: str, partition: int, subject: str) -> Row:
        consumers = [name for name in CONSUMERS if (self._archive(name) / host).is_dir()]
        folders = [self._archive(name) / host for name in consumers]
        sources = self._sources(host)
        bytes_in, identical = 0, len(consumers) == 1
        for source in sources:
            written = source_bytes(source)
            bytes_in += len(written)
            identical = identical and archived_bytes(folders[0], source) == written
        archived = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
        return Row(
            *(host, partition, subject, " ".join(map(short, consumers)), len(sources)),
            *(bytes_in, archived, identical and archived == bytes_in),
        )

    def _run(self, command: list[str]) -> str:
        """Run a program of ours with nothing of the user's Ansible; what it printed. Raises DemoError."""
        env = clean_environment()
        env.update(
            PATH="%s:%s" % (BIN, os.environ.get("PATH", os.defpath)),
            LC_ALL="C.UTF-8",
            XDG_CACHE_HOME=str(self.folder / "cache"),
            ANSIBLE_HOME=str(self.folder / "ansible"),
            # Not below the home of the account, which may have none.
            ANSIBLE_REMOTE_TEMP=str(self.folder / "ansible" / "remote"),
            ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"),
            ANSIBLE_COLLECTIONS_PATH=str(self.folder / "collections"),
            ANSIBLE_FORKS=str(len(PRODUCERS)),
            ANSIBLE_NOCOLOR="1",
        )
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for us, who end it.
            start_new_session=True,
        )
        try:
            output, _nothing = process.communicate()
        except BaseException:
            # What it has started and left behind has its own sessions: clean_up() knows that by its environment.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            raise DemoError("%s\n%s failed with exit code %d" % (output, " ".join(command), process.returncode))
        return output

    def say_how_to_look(self) -> None:
        print(
            "\nThe fleet is still running. To look at it:\n"
            "  less %(folder)s/inventory.yml\n"
            "  find %(archive)s/srv/archive -type f\n"
            "  %(shipper)s status --env-file %(env)s\n"
            "  %(shipper)s logs --env-file %(env)s --follow %(host)s\n"
            "  echo hello >> %(log)s\n"
            "  %(supervisorctl)s status\n"
            "  tail -f %(folder)s/*/var/log/shipper/*.log\n"
            "To stop it and remove %(folder)s:\n"
            "  %(python)s %(demo)s --stop %(folder)s"
            % {
                "folder": self.folder,
                "archive": self.host(CONSUMERS[0]),
                "shipper": self._program(CONSUMERS[0]),
                "env": self._fleet_env,
                "host": PRODUCERS[0],
                "log": self._application_log(PRODUCERS[0]),
                "supervisorctl": " ".join(self._supervisorctl(CONSUMERS[0])),
                "python": sys.executable,
                "demo": Path(__file__).resolve(),
            }
        )


def machine_logs() -> list[Path]:
    """Real logs of this machine, as far as this user may read them."""
    found = []
    for path in sorted([*Path("/var/log").glob("*.log"), *Path("/var/log").glob("apt/*.log"), Path("/var/log/syslog")]):
        with contextlib.suppress(OSError):
            if path.is_file() and 0 < path.stat().st_size <= LOG_MOST_BYTES and os.access(path, os.R_OK):
                found.append(path)
    return found


def source_bytes(source: Path) -> bytes:
    """The whole lines of a log, of what was rotated away before those of what is there."""
    data = b"".join(path.read_bytes() for path in (source.with_name(source.name + ".1"), source) if path.exists())
    return data[: data.rfind(b"\n") + 1]


def archived_bytes(folder: Path, source: Path) -> bytes:
    """All archive files of a source in name order, one behind the other."""
    beside = folder / str(source)[1:]
    dated = re.compile(re.escape(beside.name) + r"-\d{8}\Z")
    if not beside.parent.is_dir():
        return b""
    return b"".join(path.read_bytes() for path in sorted(beside.parent.iterdir()) if dated.match(path.name))


def stop(folder: Path) -> int:
    """Stop a fleet that was left running."""
    if not (folder / "inventory.yml").is_file() or not (folder / "nats.pid").is_file():
        print("%s is not the folder of a demo that was left running" % folder, file=sys.stderr)
        return 2
    clean_up(folder)
    print("stopped, and %s removed" % folder)
    return 0


def clean_up(folder: Path) -> None:
    """End every process of this fleet, and no other; then remove its folder."""
    told = [
        subprocess.Popen(
            [str(BIN / "supervisorctl"), "-c", str(configuration), "shutdown"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for configuration in folder.glob("*/etc/shipper/supervisor/supervisord.conf")
    ]
    for telling in told:
        telling.wait()
    # Who was told has a moment. Then all are told, for supervisor's signal is lost on a process that it has only just
    # forked. The broker is the last, so that the others can finish what they have in hand.
    for number, spared, seconds in (
        (None, True, 3.0),
        (signal.SIGTERM, True, 12.0),
        (signal.SIGTERM, False, 5.0),
        (signal.SIGKILL, False, 5.0),
    ):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            broker = processes_of(folder / "nats") if spared else []
            left = [pid for pid in processes_of(folder) if pid not in broker]
            if not left:
                break
            if number is not None:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[int]:
    """The processes of the fleet's folder, but for this one: its name is like no other. They name it in their command
    line, or are Ansible's, whose environment says where it is at home."""
    named, home = os.fsencode(folder) + b"/", b"ANSIBLE_HOME=" + os.fsencode(folder) + b"/"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        with contextlib.suppress(OSError):
            if pid == os.getpid() or is_zombie(pid):
                continue
            if named in (process / "cmdline").read_bytes() or home in (process / "environ").read_bytes():
                found.append(pid)
    return found


def is_zombie(pid: int) -> bool:
    return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] == "Z"


if __name__ == "__main__":
    sys.exit(main())
