# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server with exactly the permissions of permissions.py: what the programs do goes, and what an intruder tries
does not. docs/security.md has the list."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import nats.errors
import pytest
import trustme

from shipper_runtime import permissions
from shipper_runtime.permissions import inbox_prefix
from shipper_runtime.wire import Span, encode
from tests.integration.guarded import Guarded, Intruder, intruder, subject_of
from tests.support import Shipper, run_shipper, wait_for

OLDEST, NEWEST = "2.10.26", ""
EVERY = [("password", OLDEST), ("password", NEWEST), ("mtls", OLDEST), ("mtls", NEWEST)]
CROSSED = [("password", OLDEST), ("mtls", NEWEST)]
VICTIM, EVIL, NEIGHBOUR = "web1.example.net", "web2.example.net", "web4.example.net"
GET = "$JS.API.DIRECT.GET.logs-p0." + subject_of(EVIL)
FORGED = encode(VICTIM, Span(b"/var/log/forged", "f" * 32, 0, 7, 0, "0" * 32))
INBOX = inbox_prefix("producer", EVIL)


@contextlib.contextmanager
def guarded(folder: Path, auth: str, version: str, stream: str | None = "logs") -> Iterator[Guarded]:
    """Three hosts that ship, and an archive host that does too; two archive hosts in one group, one in another."""
    readers = {"a1": ("archive", (0,)), "a2": ("archive", (1,)), "b1": ("second", (0, 1))}
    with contextlib.closing(Guarded(folder, auth, version, (VICTIM, EVIL, NEIGHBOUR, "a2"), readers, stream)) as fleet:
        yield fleet


def test_the_intruder_shares_a_partition_with_one_host_and_not_with_the_other() -> None:
    assert [subject_of(host).split(".")[1] for host in (VICTIM, EVIL, NEIGHBOUR, "a2")] == ["p1", "p0", "p0", "p0"]


@pytest.mark.parametrize(("auth", "version"), CROSSED)
def test_everybody_can_do_their_work_in_durable_mode(tmp_path: Path, auth: str, version: str) -> None:
    """Two groups, streams that must be trimmed, partitions that move and one that is taken over, and the operator's
    commands: without one permission violation."""
    with guarded(tmp_path, auth, version) as fleet:
        fleet.admin("streams", SHIPPER_STREAM_MAX_BYTES="2MiB")
        fleet.admin("streams", SHIPPER_STREAM_MAX_BYTES="3MiB")
        first = {host: fleet.consumer(host) for host in ("a1", "a2", "b1")}
        # A group that comes later has what is left.
        for program in first.values():
            program.wait_for_log("Waiting for messages on subject ", 30)
        first["b1"].wait_for_log("Waiting for messages on subject shipper.p1.>")
        for host in (VICTIM, EVIL, "a2"):
            fleet.producer(host)
            fleet.write(host, 100)
        # More than the stream holds: it goes on only when it is trimmed.
        for turn in range(12):
            fleet.write(VICTIM, 20_000, "turn %d" % turn)
        for host, reader in ((VICTIM, "a2"), (EVIL, "a1"), ("a2", "a1")):
            fleet.expect(host, reader, seconds=120)
            fleet.expect(host, "b1")

        asked = run_shipper("verify", env=fleet.producer_env(EVIL))
        assert asked.returncode == 0, asked.stderr
        rows = json.loads(fleet.admin("status", "--json"))
        assert {(row["partition"], row["group"], row["owner"]) for row in rows} == {
            (0, "archive", "a1"), (1, "archive", "a2"), (0, "second", "b1"), (1, "second", "b1"),
        }  # fmt: skip
        assert {row["host"] for row in json.loads(fleet.admin("status", "--hosts", "--json"))} == {VICTIM, EVIL, "a2"}
        assert fleet.admin("logs", EVIL).encode() == fleet.log(EVIL).read_bytes()

        # The partitions of a group change hands. Whoever has one still may release it: site.yml asks the broker who.
        for host, theirs in (("a1", 0), ("a2", 1)):
            fleet.more[host] = permissions.consumer("shipper", [theirs], host, "logs", "archive")
        fleet.readers.update(a1=("archive", (1,)), a2=("archive", (0,)))
        fleet.reload()
        for host in ("a1", "a2"):
            assert first[host].stop() == 0
        moved = {host: fleet.consumer(host) for host in ("a1", "a2")}
        for host in ("a1", "a2"):
            moved[host].wait_for_log("Released logs-p", 60)
        fleet.more.clear()
        fleet.reload()
        for host in (VICTIM, EVIL):
            fleet.write(host, 100, "moved")
        fleet.expect(VICTIM, "a2", "a1")
        fleet.expect(EVIL, "a1", "a2")

        # One archive host is gone for good, and the other takes its partition over.
        moved["a2"].send(9)
        moved["a1"].stop()
        fleet.readers["a1"] = ("archive", (0, 1))
        fleet.reload()
        fleet.consumer("a1", "--take-over").wait_for_log("taken over from a2")
        fleet.write(EVIL, 100, "taken over")
        wait_for(lambda: fleet.archive("a1", EVIL).endswith(b"taken over 99\n"), 40)

        first["b1"].stop()
        assert "second is forgotten on 2 streams" in fleet.admin("forget", "second")
        assert fleet.violations == []
        assert not [program.log for program in fleet.programs if "refuses" in program.log]


@pytest.mark.parametrize(("auth", "version"), CROSSED)
def test_everybody_can_do_their_work_in_core_mode(tmp_path: Path, auth: str, version: str) -> None:
    with guarded(tmp_path, auth, version, None) as fleet:
        for host in ("a1", "a2", "b1"):
            fleet.consumer(host).wait_for_log("Waiting for messages")
        for host in (VICTIM, EVIL, "a2"):
            fleet.write(host, 1000)
            fleet.producer(host)
        for host, reader in ((VICTIM, "a2"), (EVIL, "a1"), ("a2", "a1")):
            fleet.expect(host, reader)
            fleet.expect(host, "b1")
        assert fleet.violations == []


@pytest.mark.parametrize(("auth", "version"), CROSSED)
def test_a_producer_that_is_there_before_its_stream_waits_and_says_it_in_one_line(
    tmp_path: Path, auth: str, version: str
) -> None:
    with guarded(tmp_path, auth, version) as fleet:
        fleet.write(VICTIM, 10)
        producer = fleet.producer(VICTIM)
        producer.wait_for_log("Waiting for stream logs-p1: nobody answers for it; `shipper streams` makes it")
        fleet.admin("streams")
        fleet.consumer("a2")
        fleet.expect(VICTIM, "a2")
        assert "refuses" not in producer.log
        assert len(fleet.violations) == 1, "it asked once why"


def _not_permitted(stream: str, other: str) -> list[str]:
    """What has to be refused to everybody but an admin, or the readers of this stream."""
    api = (
        "STREAM.INFO.%(s)s", "STREAM.CREATE.%(s)s", "STREAM.UPDATE.%(s)s", "STREAM.DELETE.%(s)s", "STREAM.PURGE.%(s)s",
        "STREAM.MSG.GET.%(s)s", "STREAM.MSG.DELETE.%(s)s", "STREAM.SNAPSHOT.%(s)s", "STREAM.RESTORE.%(s)s",
        "STREAM.PEER.REMOVE.%(s)s", "STREAM.LEADER.STEPDOWN.%(s)s",
        "CONSUMER.CREATE.%(s)s",
        "CONSUMER.CREATE.%(s)s.spy", "CONSUMER.CREATE.%(s)s.archive.shipper.>",
        "CONSUMER.CREATE.%(s)s.archive", "CONSUMER.DELETE.%(s)s.archive",
        "CONSUMER.DURABLE.CREATE.%(s)s.spy", "CONSUMER.MSG.NEXT.%(s)s.archive", "CONSUMER.RESET.%(s)s.archive",
        "CONSUMER.PAUSE.%(s)s.archive", "CONSUMER.LIST.%(s)s", "CONSUMER.NAMES.%(s)s", "DIRECT.GET.%(s)s",
        "DIRECT.GET.%(s)s." + other,
    )  # fmt: skip
    return ["$JS.API." + each % {"s": stream} for each in api]


EVERYBODYS = [
    "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.spy", "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.SHIPPER.CONNZ", "$JS.EVENT.ADVISORY.x", "$JS.FC.logs-p1.archive.x",
    "_INBOX.x", "_INBOX.admin.x", "anything",
]  # fmt: skip


@pytest.mark.parametrize(("auth", "version"), EVERY)
def test_a_web_server_can_neither_forge_nor_read(tmp_path: Path, auth: str, version: str) -> None:
    """Whoever has web2 tries it all while web1, in another partition, and web4, in the same one, are archived."""
    with guarded(tmp_path, auth, version) as fleet:
        fleet.admin("streams")
        for host in ("a1", "a2", "b1"):
            fleet.consumer(host)
        for host in (VICTIM, NEIGHBOUR):
            fleet.producer(host)
            fleet.write(host, 1000, "before")
            fleet.expect(host, "b1")

        async def attack() -> None:
            async with intruder(fleet, EVIL, INBOX) as evil:
                await _forbidden(evil)
                await _reply_subjects(evil)
                await _headers(evil, newer=version != OLDEST)
                await evil.publish(subject_of(EVIL), b"the last", headers={})

        asyncio.run(attack())
        streams = json.loads(fleet.admin("streams", "--json", "--dry-run"))
        assert [row["action"] for row in streams] == ["unchanged", "unchanged"]
        for host in (VICTIM, NEIGHBOUR):
            fleet.write(host, 1000, "after")
            fleet.expect(host, "b1")
        fleet.expect(VICTIM, "a2")
        fleet.expect(NEIGHBOUR, "a1")
        # Its own lines it may write, in good form, as itself.
        assert {host["host"] for host in json.loads(fleet.admin("status", "--hosts", "--json"))} == {
            VICTIM, EVIL, NEIGHBOUR,
        }  # fmt: skip
        assert {path.name for path in (fleet.folder / "archive-b1").iterdir()} - {".shipper"} <= {
            VICTIM, EVIL, NEIGHBOUR,
        }  # fmt: skip
        assert not any("again from behind" in program.log for program in fleet.programs), "nobody was held up"


async def _forbidden(evil: Intruder) -> None:
    other = [subject_of(VICTIM), subject_of(NEIGHBOUR), "shipper.p1." + EVIL, subject_of(EVIL) + ".x", "shipper.p0"]
    other += [inbox_prefix("producer", VICTIM) + ".x", inbox_prefix("consumer", "a1") + ".x"]
    acks = ["logs-p1.archive.1.1.1.1.0", "_.hash.logs-p1.archive.1.1.1.1.0", "logs-p0.archive.1.1.1.1.0"]
    other += ["$JS.ACK." + each for each in acks]
    other += _not_permitted("logs-p1", subject_of(VICTIM)) + _not_permitted("logs-p0", subject_of(NEIGHBOUR))
    for subject in (*other, *EVERYBODYS):
        assert not await evil.may_publish(subject), subject
    own = "producer=%s" % EVIL.replace(".", "=")
    for subject in (
        ">", "*", "*.>", "shipper.>", "shipper.*.>", "shipper.p0.>", subject_of(VICTIM), subject_of(EVIL), "_INBOX.>",
        "_INBOX.*", "_INBOX.*.>", "_INBOX.*.*", inbox_prefix("producer", VICTIM) + ".>",
        inbox_prefix("consumer", "a1") + ".*", "_INBOX.admin.>", "$JS.>", "$JS.ACK.>", "$JS.EVENT.>", "$SYS.>", "_R_.>",
        "_INBOX." + own,
    ):  # fmt: skip
        assert not await evil.may_subscribe(subject), subject


async def _reply_subjects(evil: Intruder) -> None:
    """A server answers to any subject: with an acknowledgement, an error, or a message of the intruder."""
    spy = {"stream_name": "logs-p1", "config": {"name": "spy", "deliver_subject": INBOX + ".spy", "ack_policy": "none"}}
    heard = await evil.client.subscribe(INBOX + ".spy")
    for payload, headers in (
        (b"forged", FORGED), (b"forged", {}), (b"", {}), (b"{}", {}), (json.dumps(spy).encode(), {}),
        (json.dumps({"seq": 10**6}).encode(), {}),
    ):  # fmt: skip
        await evil.client.request(subject_of(EVIL), payload, headers={**headers, "Nats-Expected-Stream": "logs-p0"})
        for reply in (
            subject_of(VICTIM), subject_of(NEIGHBOUR), inbox_prefix("producer", VICTIM) + ".0.1", "_INBOX.admin.0.1",
            "$JS.API.STREAM.DELETE.logs-p1", "$JS.API.STREAM.PURGE.logs-p1", "$JS.API.STREAM.PURGE.logs-p0",
            "$JS.API.CONSUMER.CREATE.logs-p1.spy", "$JS.API.CONSUMER.DELETE.logs-p1.archive",
            "$JS.API.CONSUMER.MSG.NEXT.logs-p1.archive", "$JS.API.DIRECT.GET.logs-p1." + subject_of(VICTIM),
        ):  # fmt: skip
            await evil.publish(GET, b"", reply)
            await evil.publish(GET, b'{"no_hdr": true}', reply)
            await evil.publish(subject_of(EVIL), payload, reply, headers)
            await evil.publish(subject_of(EVIL), payload, reply, {**headers, "Nats-Expected-Stream": "other"})
    for reply in ("$JS.ACK.logs-p1.archive.1.1.1.1.0", "_R_.x", "$GNR.x"):
        await evil.publish(subject_of(EVIL), b"+ACK", reply)
    for body in ({"last_by_subj": subject_of(NEIGHBOUR)}, {"seq": 1}, {"multi_last": ["shipper.>"]}, {"batch": 9}):
        answer = await evil.client.request(GET, json.dumps(body).encode())
        assert (answer.headers or {}).get("Status") == "408" or (answer.headers or {})["Nats-Subject"] == subject_of(
            EVIL
        )
    with pytest.raises((nats.errors.TimeoutError, asyncio.TimeoutError)):
        await heard.next_msg(0.5)


async def _headers(evil: Intruder, newer: bool) -> None:
    """What a server may do at the word of a header."""
    for headers in (
        {"Nats-Rollup": "all"}, {"Nats-Rollup": "sub"}, {"Nats-TTL": "1s"}, {"Nats-Incr": "1"},
        {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": subject_of(NEIGHBOUR)},
        {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}, {"Nats-Batch-Id": "b", "Nats-Batch-Commit": "1"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        {"Nats-Request-Info": '{"acc": "SHIPPER"}'}, {"Nats-Expected-Last-Subject-Sequence-Subject": "shipper.>"},
    ):  # fmt: skip
        await evil.publish(subject_of(EVIL), b"forged", INBOX + ".x", {**FORGED, **headers})
    for trace in (subject_of(VICTIM), subject_of(NEIGHBOUR), "$JS.API.STREAM.DELETE.logs-p1"):
        before = len(evil.refused)
        await evil.publish(subject_of(EVIL), b"forged", INBOX + ".x", {**FORGED, "Nats-Trace-Dest": trace})
        assert not newer or not await evil.nothing_new(before), trace


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("stream", ["logs", None])
def test_without_an_account_of_its_own_a_host_could_forge_but_for_the_consumer(
    tmp_path: Path, version: str, stream: str | None
) -> None:
    """As where somebody gives these permissions to users of one account: the server writes to any subject what it is
    asked to, and what it says is rejected."""
    with guarded(tmp_path, "password", version) as fleet:
        fleet.one_account = True
        fleet.reload()
        fleet.admin("streams")
        # In core mode it reads the same subjects, but not the streams.
        fleet.more["b1"] = permissions.consumer("shipper", (0, 1), "b1", None, "second")
        fleet.reload()
        fleet.stream = stream
        consumer = fleet.consumer("b1")
        consumer.wait_for_log("Waiting for messages on subject shipper.p1.>")
        fleet.stream = "logs"
        fleet.write(VICTIM, 10)
        fleet.producer(VICTIM)
        fleet.expect(VICTIM, "b1")

        async def attack() -> None:
            async with intruder(fleet, EVIL, INBOX) as evil:
                await evil.client.request(subject_of(EVIL), b"forged", headers=FORGED)
                await evil.publish(GET, b"", subject_of(VICTIM))
                await evil.publish(subject_of(EVIL), b"x", subject_of(NEIGHBOUR), FORGED)

        asyncio.run(attack())
        consumer.wait_for_log("Rejecting messages on %s: a server's answer, not a host's message" % subject_of(VICTIM))
        fleet.write(VICTIM, 10, "after")
        fleet.expect(VICTIM, "b1")
        assert fleet.archive("b1", NEIGHBOUR) == b""


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_without_an_account_of_its_own_a_host_could_delete_any_stream(tmp_path: Path, version: str) -> None:
    """Why who only ships is in an account without JetStream."""
    with guarded(tmp_path, "password", version) as fleet:
        fleet.one_account = True
        fleet.reload()
        fleet.admin("streams")

        async def attack() -> None:
            async with intruder(fleet, EVIL, INBOX) as evil:
                await evil.client.request(subject_of(EVIL), b"")
                await evil.publish(GET, b"", "$JS.API.STREAM.DELETE.logs-p1")

        asyncio.run(attack())
        wait_for(lambda: "created" in fleet.admin("streams", "--dry-run"), what="a stream that is gone")


@pytest.mark.parametrize(("auth", "version"), CROSSED)
def test_an_archive_host_can_do_nothing_with_what_is_anothers(tmp_path: Path, auth: str, version: str) -> None:
    """Neither with streams of other partitions, nor with another group, nor publish lines."""
    with guarded(tmp_path, auth, version) as fleet:
        fleet.admin("streams")
        consumer = fleet.consumer("b1")
        fleet.producer(VICTIM)
        fleet.write(VICTIM, 100)
        fleet.expect(VICTIM, "b1")

        async def attack() -> None:
            async with intruder(fleet, "a1", inbox_prefix("consumer", "a1")) as evil:
                others = [
                    subject_of(EVIL), subject_of(VICTIM), "shipper.p0.a1", "$JS.API.STREAM.DELETE.logs-p0",
                    "$JS.API.STREAM.UPDATE.logs-p0", "$JS.API.STREAM.MSG.DELETE.logs-p0",
                    "$JS.API.CONSUMER.CREATE.logs-p0", "$JS.API.CONSUMER.CREATE.logs-p0.spy",
                    "$JS.API.CONSUMER.CREATE.logs-p0.second",
                    "$JS.API.CONSUMER.DELETE.logs-p0.second", "$JS.API.CONSUMER.MSG.NEXT.logs-p0.second",
                    "$JS.API.CONSUMER.DURABLE.CREATE.logs-p0.archive", "$JS.API.DIRECT.GET.logs-p0",
                    "$JS.ACK.logs-p0.second.1.1.1.1.0", "$JS.ACK.logs-p1.archive.1.1.1.1.0",
                    "$JS.ACK.logs-p1.second.logs-p0.archive.1.1.0", "$JS.ACK._.hash.logs-p1.archive.1.1.1.1.0",
                ]  # fmt: skip
                for subject in (*others, *EVERYBODYS, *_not_permitted("logs-p1", subject_of(VICTIM))):
                    assert not await evil.may_publish(subject), subject
                for subject in (
                    ">",
                    "shipper.>",
                    "shipper.p0.>",
                    "$JS.>",
                    "_INBOX.>",
                    inbox_prefix("consumer", "b1") + ".>",
                ):
                    assert not await evil.may_subscribe(subject), subject

        asyncio.run(attack())
        fleet.write(VICTIM, 100, "after")
        fleet.expect(VICTIM, "b1")
        assert "again" not in consumer.log


@pytest.mark.parametrize(("auth", "version"), EVERY)
def test_a_host_that_is_taken_out_is_cut_off_at_the_reload(tmp_path: Path, auth: str, version: str) -> None:
    with guarded(tmp_path, auth, version) as fleet:
        fleet.admin("streams")
        fleet.consumer("b1")
        producer = fleet.producer(VICTIM)
        fleet.producer(NEIGHBOUR)
        for host in (VICTIM, NEIGHBOUR):
            fleet.write(host, 10)
            fleet.expect(host, "b1")
        before = fleet.log(VICTIM).read_bytes()
        fleet.producers = (EVIL, NEIGHBOUR)
        fleet.reload()
        producer.wait_for_log("Disconnected from ")
        for host in (VICTIM, NEIGHBOUR):
            fleet.write(host, 10, "after")
        fleet.expect(NEIGHBOUR, "b1")
        producer.wait_for_log("Cannot connect to ")
        assert fleet.archive("b1", VICTIM) == before

        async def again() -> None:
            async with intruder(fleet, VICTIM, inbox_prefix("producer", VICTIM)) as gone:
                await gone.client.flush()

        with pytest.raises((nats.errors.Error, OSError)):
            asyncio.run(again())


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_certificate_is_of_one_host_whatever_name_is_claimed(tmp_path: Path, version: str) -> None:
    with guarded(tmp_path, "mtls", version) as fleet:

        async def attack() -> None:
            async with intruder(fleet, EVIL, INBOX, user=VICTIM, password="") as evil:
                assert not await evil.may_publish(subject_of(VICTIM))
                assert await evil.may_publish(subject_of(EVIL))

        asyncio.run(attack())


def _cut_off(fleet: Guarded, programs: list[Shipper]) -> None:
    """Have everybody connect anew: who is no user for a moment is thrown out."""
    connected = [program.log.count("Connected to ") for program in programs]
    known = fleet.producers, fleet.readers
    fleet.producers, fleet.readers = (), {}
    fleet.reload()
    wait_for(lambda: all("Cannot connect" in program.log.rpartition("Disconnected")[2] for program in programs), 30)
    fleet.producers, fleet.readers = known
    fleet.reload()
    for program, before in zip(programs, connected):
        wait_for(lambda: program.log.count("Connected to ") > before, 30, program.log)  # noqa: B023


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_certificates_and_their_authority_change_without_a_restart(tmp_path: Path, version: str) -> None:
    """As docs/security.md says it: the new authority behind the old one, new certificates, the old one away; with a
    reload of the server each time."""
    with guarded(tmp_path, "mtls", version) as fleet:
        fleet.admin("streams")
        programs = [fleet.consumer("b1"), fleet.producer(VICTIM)]
        fleet.write(VICTIM, 10)
        fleet.expect(VICTIM, "b1")
        old, new = fleet.ca, trustme.CA()

        def step(number: int) -> None:
            fleet.reload()
            _cut_off(fleet, programs)
            fleet.write(VICTIM, 10, "step %d" % number)
            fleet.expect(VICTIM, "b1")

        fleet.write_authorities(old, new)
        step(1)
        fleet.ca = new
        for file, name in (("server", "127.0.0.1"), (VICTIM, VICTIM), ("b1", "b1")):
            fleet.certify(file, name)
        step(2)
        fleet.write_authorities(new)
        step(3)
        assert all(program.process is not None and program.process.poll() is None for program in programs)
