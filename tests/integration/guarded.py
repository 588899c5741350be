# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose broker knows each host, for tests: by a password or by its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import nats.errors
import trustme
from nats.aio.client import Client

from shipper_runtime import natsfix, permissions
from shipper_runtime.partition import host_subject, partition
from shipper_runtime.permissions import ACCOUNT, ADMIN, PRODUCERS, Allowed
from tests.support import NatsServer, Shipper, archived, run_shipper, wait_for

SECRET = "a secret of at least 32 characters"
PARTITIONS = 2


class Guarded:
    """Hosts are users of exactly what permissions.py says. Nothing runs but the server until it is started.

    auth is "password" or "mtls"; stream is None for core NATS. readers is which partitions of which group a host reads.
    """

    def __init__(
        self,
        folder: Path,
        auth: str,
        version: str,
        producers: tuple[str, ...],
        readers: Mapping[str, tuple[str, tuple[int, ...]]],
        stream: str | None = "logs",
    ) -> None:
        self.folder = folder
        self.auth = auth
        self.stream = stream
        self.producers = producers
        self.readers = dict(readers)
        # What a test grants beyond that.
        self.more: dict[str, Allowed] = {}
        self.one_account = False
        self.programs: list[Shipper] = []
        self._tls = folder / "tls"
        self.ca = trustme.CA()
        if auth == "mtls":
            self._tls.mkdir()
            self.write_authorities(self.ca)
            self.certify("server", "127.0.0.1")
            for name in (*producers, *readers, ADMIN):
                self.certify(name, name)
        scheme = "tls" if auth == "mtls" else "nats"
        self.server = NatsServer(folder / "nats", self.config(), scheme, version).start()

    def write_authorities(self, *authorities: trustme.CA) -> None:
        """What everybody trusts."""
        text = b"".join(each.cert_pem.bytes() for each in authorities)
        fresh = self._tls / "ca.new"
        fresh.write_bytes(text)
        fresh.rename(self._tls / "ca.pem")

    def certify(self, file: str, name: str) -> None:
        """A new certificate, and its key, at the same place as the last one."""
        issued = self.ca.issue_cert(name)
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        for suffix, text in (("key", issued.private_key_pem.bytes()), ("pem", chain)):
            fresh = self._tls / ("%s.%s.new" % (file, suffix))
            fresh.write_bytes(text)
            fresh.rename(self._tls / ("%s.%s" % (file, suffix)))

    def allowed(self, host: str) -> Allowed:
        rights = self.more.get(host, Allowed())
        if host in self.producers:
            rights |= permissions.producer("shipper", PARTITIONS, host, self.stream)
        if host in self.readers:
            group, numbers = self.readers[host]
            rights |= permissions.consumer("shipper", numbers, host, self.stream, group)
        return permissions.admin() if host == ADMIN else rights

    def config(self) -> str:
        users = []
        for name in dict.fromkeys((*self.producers, *self.readers, ADMIN)):
            rights = self.allowed(name)
            user: dict[str, Any] = {"name": name, "publish": rights.publish, "subscribe": rights.subscribe}
            ships_only = name in self.producers and name not in self.readers and not self.one_account
            user["account"] = PRODUCERS if ships_only else ACCOUNT
            if self.auth == "password":
                user["password"] = permissions.password(SECRET, name)
            users.append(user)
        text = permissions.accounts(users, ["shipper"])
        text += 'jetstream { store_dir: "%s", max_file_store: 1GB }\n' % (self.folder / "js")
        if self.auth == "mtls":
            files = tuple(self._tls / name for name in ("server.pem", "server.key", "ca.pem"))
            text += (
                'tls { cert_file: "%s", key_file: "%s", ca_file: "%s", verify_and_map: true, timeout: 10 }\n' % files
            )
        return text

    def reload(self) -> None:
        """Have the server read its configuration, and its certificates, again."""
        before = self.server.log.count("Reloaded server configuration")
        self.server.configure(self.config())
        wait_for(lambda: self.server.log.count("Reloaded server configuration") > before, what=self.server.log[-2000:])

    def env(self, host: str, **more: str) -> dict[str, str]:
        env = {"SHIPPER_SUBJECT": "shipper", "SHIPPER_PARTITIONS": str(PARTITIONS), "HOSTNAME": host}
        env["NATS_URL"] = self.server.url
        if self.auth == "password":
            credentials = "%s:%s" % (host, permissions.password(SECRET, host))
            env["NATS_URL"] = "nats://%s@127.0.0.1:%d" % (credentials, self.server.port)
        else:
            env["NATS_CA"] = str(self._tls / "ca.pem")
            env["NATS_CERTIFICATE"] = str(self._tls / (host + ".pem"))
            env["NATS_KEY"] = str(self._tls / (host + ".key"))
        if self.stream:
            env["SHIPPER_STREAM"] = self.stream
        return {**env, **more}

    def admin(self, *command: str, **more: str) -> str:
        """What an operator's command prints."""
        env = self.env(ADMIN, **{"SHIPPER_STREAM_MAX_BYTES": "16MiB", **more})
        del env["HOSTNAME"]
        done = run_shipper(*command, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def producer(self, host: str) -> Shipper:
        return self._program("producer", host, self.producer_env(host))

    def producer_env(self, host: str) -> dict[str, str]:
        files = {"SHIPPER_FILE": str(self.log(host)), "SHIPPER_STATE": str(self.folder / ("state-" + host))}
        return self.env(host, **files)

    def consumer(self, host: str, *arguments: str) -> Shipper:
        group, numbers = self.readers[host]
        env = self.env(
            host,
            SHIPPER_GROUP=group,
            SHIPPER_READ_PARTITIONS=",".join(map(str, numbers)),
            SHIPPER_DIRECTORY=str(self.folder / ("archive-" + host)),
            SHIPPER_OUTPUT="{source}-%Y",
            SHIPPER_ROTATE="52w",
            SHIPPER_PLAIN="reject",
        )
        return self._program("consumer", host, env, arguments)

    def _program(self, command: str, host: str, env: dict[str, str], arguments: tuple[str, ...] = ()) -> Shipper:
        program = Shipper(command, env, self.folder / ("%s-%s.log" % (command, host)))
        program._arguments += arguments
        self.programs.append(program)
        return program.start()

    def log(self, host: str) -> Path:
        return self.folder / (host + ".app")

    def write(self, host: str, lines: int, tag: str = "") -> None:
        with self.log(host).open("ab") as file:
            file.write(b"".join(b"%s %s %d\n" % (host.encode(), tag.encode(), number) for number in range(lines)))

    def archive(self, reader: str, host: str) -> bytes:
        directory = self.folder / ("archive-" + reader)
        return archived(directory, host) if (directory / host).is_dir() else b""

    def expect(self, host: str, *readers: str, seconds: float = 40.0) -> None:
        """The readers' archives together come to hold exactly what the host has written."""
        written = self.log(host).read_bytes()

        def logs() -> str:
            return "\n".join(program.log[-2000:] for program in self.programs) + self.server.log[-2000:]

        with contextlib.suppress(AssertionError):
            wait_for(lambda: b"".join(self.archive(each, host) for each in readers) == written, seconds)
        found = b"".join(self.archive(each, host) for each in readers)
        assert found == written, "%s: %d of %d bytes\n%s" % (host, len(found), len(written), logs())

    @property
    def violations(self) -> list[str]:
        return [line for line in self.server.log.splitlines() if "iolation" in line]

    def close(self) -> None:
        for program in self.programs:
            program.__exit__(None, None, None)
        self.server.__exit__(None, None, None)


class Intruder:
    """A client of somebody's own with a host's identity. refused are the errors that the server has sent."""

    def __init__(self, client: Client, refused: list[str]) -> None:
        self.client = client
        self.refused = refused

    async def publish(
        self, subject: str, payload: bytes = b"x", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Return when the server has read it."""
        await self.client.publish(subject, payload, reply, headers)
        await self.client.flush()

    async def may_publish(self, subject: str) -> bool:
        """Whether the server took it, as far as it says in some time."""
        before = len(self.refused)
        await self.publish(subject)
        return await self.nothing_new(before)

    async def may_subscribe(self, subject: str) -> bool:
        """Whether the server let it."""
        before = len(self.refused)
        await self.client.subscribe(subject)
        await self.client.flush()
        return await self.nothing_new(before)

    async def nothing_new(self, before: int) -> bool:
        """Whether there are no more errors than before."""
        # The client tells an error some time after it was read.
        for _turn in range(100):
            if len(self.refused) > before:
                return False
            await asyncio.sleep(0.01)
        return True


@contextlib.asynccontextmanager
async def intruder(fleet: Guarded, host: str, inbox: str, **options: Any) -> AsyncIterator[Intruder]:
    """Connected as this host. Raises nats.errors.Error where the server does not know it."""
    env = fleet.env(host)
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    if fleet.auth == "mtls":
        context = ssl.create_default_context(cafile=env["NATS_CA"])
        context.load_cert_chain(env["NATS_CERTIFICATE"], env["NATS_KEY"])
        options["tls"] = context
    client = Client()
    try:
        await client.connect(
            env["NATS_URL"],
            inbox_prefix=inbox.encode(),
            error_cb=on_error,
            allow_reconnect=False,
            connect_timeout=5,
            **options,
        )
        yield Intruder(client, refused)
    finally:
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            await client.close()
        # nats-py leaves the transport of a connection that was refused.
        natsfix.abort(client)
        await asyncio.sleep(0)


def subject_of(host: str) -> str:
    """What a host publishes to."""
    return host_subject("shipper", partition(host, PARTITIONS), host)
