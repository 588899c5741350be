# SPDX-License-Identifier: GPL-3.0-or-later
"""``shipper streams`` and ``shipper forget`` against a real server with JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from shipper_runtime.broker import connected
from shipper_runtime.jetstream import JetStream
from shipper_runtime.permissions import inbox_prefix
from shipper_runtime.settings import broker_settings
from tests.support import NatsServer, run_shipper, wait_for

GIB = 2**30
MIB = 2**20


def jetstream_config(folder: Path, room: str = "1GB") -> str:
    return 'jetstream { store_dir: "%s", max_file_store: %s }' % (folder / "jetstream", room)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", jetstream_config(tmp_path)) as running:
        yield running


def ask(server: NatsServer, body: Callable[[JetStream], Awaitable[Any]]) -> Any:
    """The result of body on this server's JetStream."""

    async def main() -> Any:
        settings = broker_settings({"NATS_URL": server.url})
        async with connected(settings, "test", inbox_prefix("test", "test")) as link:
            return await body(JetStream(link))

    return asyncio.run(main())


def config_of(server: NatsServer, stream: str) -> dict[str, Any]:
    return dict(ask(server, lambda jetstream: jetstream.stream_info(stream))["config"])


def everything(server: NatsServer) -> Any:
    """All streams with their configs and consumers, to see whether anything was changed."""

    async def body(jetstream: JetStream) -> Any:
        found = {}
        for name in await jetstream.streams_of(">"):
            info = await jetstream.stream_info(name)
            consumers = [consumer["name"] for consumer in await jetstream.consumers(name)]
            found[name] = (info["config"], info["created"], info["state"]["messages"], consumers)
        return found

    return ask(server, body)


def store(server: NatsServer, stream: str, count: int = 1, length: int = 100_000) -> None:
    number = stream.rpartition("-p")[2]

    async def body(jetstream: JetStream) -> None:
        for _turn in range(count):
            await jetstream.publish("shipper.p%s.web1" % number, b"x" * length, {}, stream)

    ask(server, body)


def shipper(
    server: NatsServer | str, *arguments: str, partitions: int = 3, **env: str
) -> subprocess.CompletedProcess[str]:
    url = server if isinstance(server, str) else server.url
    fleet = {
        "NATS_URL": url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs", "SHIPPER_PARTITIONS": str(partitions),
        "SHIPPER_STREAM_MAX_BYTES": "10MiB",
    }  # fmt: skip
    return run_shipper(*arguments, env={**fleet, **env})


def streams(server: NatsServer | str, *arguments: str, partitions: int = 3, **env: str) -> str:
    """The output of a run that must end well."""
    result = shipper(server, "streams", *arguments, partitions=partitions, **env)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def no(result: subprocess.CompletedProcess[str], stdout: str = "") -> str:
    """The one line of a run that must end with exit code 2."""
    assert (result.returncode, result.stdout) == (2, stdout), result
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("shipper: ")
    return result.stderr


def test_each_partition_gets_its_stream(server: NatsServer) -> None:
    limits = {"SHIPPER_STREAM_MAX_AGE": "7d", "SHIPPER_STREAM_DUPLICATES": "5m"}
    said = "max_bytes 10MiB, max_age 1w, num_replicas 1, duplicate_window 5m"
    assert streams(server, **limits).splitlines() == [
        "created logs-p%d on shipper.p%d.>: %s" % (number, number, said) for number in range(3)
    ]
    config = config_of(server, "logs-p2")
    wanted = {
        "name": "logs-p2", "subjects": ["shipper.p2.>"], "storage": "file", "retention": "limits", "discard": "new",
        "num_replicas": 1, "max_bytes": 10 * MIB, "max_age": 7 * 86400 * 10**9, "duplicate_window": 300 * 10**9,
        "allow_direct": True, "deny_delete": False, "deny_purge": False,
    }  # fmt: skip
    assert {field: config[field] for field in wanted} == wanted
    assert "logfleet.shipper" in config["description"]


def test_without_partitions_there_is_one_stream(server: NatsServer) -> None:
    assert streams(server, partitions=0).startswith("created logs-p0 on shipper.p0.>: ")
    assert list(everything(server)) == ["logs-p0"]


def test_a_second_run_changes_nothing_and_says_so(server: NatsServer) -> None:
    streams(server)
    before = everything(server)
    assert streams(server) == "unchanged logs-p0\nunchanged logs-p1\nunchanged logs-p2\n"
    assert streams(server, "--force") == streams(server, "--dry-run") == streams(server)
    assert everything(server) == before
    rows = json.loads(streams(server, "--json"))
    assert rows[2] == {"stream": "logs-p2", "partition": 2, "action": "unchanged", "changes": {}, "readable": {}}


def test_what_is_different_is_changed_and_said(server: NatsServer) -> None:
    streams(server)
    store(server, "logs-p1")
    limits = {"SHIPPER_STREAM_MAX_BYTES": "20MiB", "SHIPPER_STREAM_MAX_AGE": "1d"}
    line = "updated logs-p%d: max_bytes: 10MiB -> 20MiB, max_age: none -> 1d"
    assert streams(server, **limits).splitlines() == [line % number for number in range(3)]
    assert config_of(server, "logs-p0")["max_bytes"] == 20 * MIB
    assert everything(server)["logs-p1"][2] == 1


def test_a_fleet_that_grows_gets_the_streams_that_are_missing(server: NatsServer) -> None:
    streams(server, partitions=2)
    lines = streams(server, partitions=4).splitlines()
    assert [line.partition(" on ")[0] for line in lines] == [
        "unchanged logs-p0", "unchanged logs-p1", "created logs-p2", "created logs-p3",
    ]  # fmt: skip


def test_json_names_stream_partition_action_and_changes(server: NatsServer) -> None:
    streams(server, partitions=1)
    rows = json.loads(streams(server, "--json", partitions=2, SHIPPER_STREAM_MAX_BYTES="20MiB"))
    assert rows[0] == {
        "stream": "logs-p0", "partition": 0, "action": "updated", "changes": {"max_bytes": [10 * MIB, 20 * MIB]},
        "readable": {"max_bytes": ["10MiB", "20MiB"]},
    }  # fmt: skip
    assert (rows[1]["stream"], rows[1]["partition"], rows[1]["action"]) == ("logs-p1", 1, "created")
    assert rows[1]["changes"]["max_bytes"] == [None, 20 * MIB]


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(server: NatsServer) -> None:
    streams(server, partitions=2)
    before = everything(server)
    told = streams(server, "--dry-run", SHIPPER_STREAM_MAX_BYTES="20MiB")
    assert told.startswith("would be updated logs-p0: ") and "\nwould be created logs-p2 on " in told
    said = streams(server, "--dry-run", "--json", SHIPPER_STREAM_MAX_BYTES="20MiB")
    assert everything(server) == before
    assert said == streams(server, "--json", SHIPPER_STREAM_MAX_BYTES="20MiB")
    assert set(everything(server)) == {"logs-p0", "logs-p1", "logs-p2"}


def test_what_an_operator_has_set_beyond_ours_stays(server: NatsServer) -> None:
    streams(server, partitions=1)
    mine = {"compression": "s2", "max_msgs": 1_000_000, "max_msg_size": 900_000}
    metadata = {"owner": "ops", "shipper-forgotten-old": "1700000000000000000"}

    async def body(jetstream: JetStream) -> None:
        config = (await jetstream.stream_info("logs-p0"))["config"]
        await jetstream.update_stream({**config, **mine, "metadata": metadata})

    ask(server, body)
    assert streams(server, partitions=1) == "unchanged logs-p0\n"
    assert streams(server, partitions=1, SHIPPER_STREAM_MAX_BYTES="20MiB").startswith("updated logs-p0: max_bytes")
    config = config_of(server, "logs-p0")
    assert {field: config[field] for field in mine} == mine
    assert config["metadata"].items() >= metadata.items()
    assert config["max_bytes"] == 20 * MIB


def test_a_limit_below_what_is_stored_is_refused_before_anything_is_changed(server: NatsServer) -> None:
    streams(server, partitions=2)
    store(server, "logs-p1", 15)
    before = everything(server)
    line = no(shipper(server, "streams", SHIPPER_STREAM_MAX_BYTES="1MiB"))
    assert "SHIPPER_STREAM_MAX_BYTES=1MiB: stream logs-p1 stores more" in line
    assert "use 2MiB or more, or --force" in line
    assert no(shipper(server, "streams", "--dry-run", "--json", SHIPPER_STREAM_MAX_BYTES="1MiB")) == line
    assert everything(server) == before
    assert "logs-p1: max_bytes: 10MiB -> 1MiB" in streams(server, "--force", SHIPPER_STREAM_MAX_BYTES="1MiB")
    assert everything(server)["logs-p1"][2] == 15, "a stream that refuses what is new deletes nothing for that"


def test_an_age_that_would_delete_messages_is_refused_before_anything_is_changed(server: NatsServer) -> None:
    streams(server)
    store(server, "logs-p2")
    short = {"SHIPPER_STREAM_MAX_AGE": "1s", "SHIPPER_STREAM_DUPLICATES": "1s"}
    time.sleep(1.1)
    before = everything(server)
    line = no(shipper(server, "streams", **short))
    assert "SHIPPER_STREAM_MAX_AGE=1s: stream logs-p2 holds older messages" in line
    assert "or 0, or --force" in line
    assert everything(server) == before
    assert "max_age: none -> 1h" in streams(server, SHIPPER_STREAM_MAX_AGE="1h")
    assert "max_age: 1h -> 1s" in streams(server, "--force", **short)
    wait_for(lambda: everything(server)["logs-p2"][2] == 0)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"storage": "memory"}, "has storage memory, which cannot be changed"),
        ({"retention": "workqueue"}, "has retention workqueue, which cannot be changed"),
        ({"deny_purge": True}, "has deny_purge true, which cannot be changed"),
        ({"deny_delete": True}, "has deny_delete true, which cannot be changed"),
    ],
)
def test_what_the_server_never_changes_is_refused_with_force_too(
    server: NatsServer, other: dict[str, Any], says: str
) -> None:
    made = {"name": "logs-p2", "subjects": ["shipper.p2.>"], "max_bytes": MIB, **other}
    ask(server, lambda jetstream: jetstream.create_stream({"storage": "file", **made}))
    before = everything(server)
    for arguments in ((), ("--force",)):
        line = no(shipper(server, "streams", *arguments))
        assert "SHIPPER_STREAM=logs: stream logs-p2 " + says in line
        assert "nats stream rm logs-p2" in line
    assert everything(server) == before


def test_a_mirror_is_refused_with_force_too(server: NatsServer) -> None:
    streams(server, partitions=1)
    mirror = {"name": "copy-p0", "mirror": {"name": "logs-p0"}, "storage": "file", "max_bytes": MIB}
    ask(server, lambda jetstream: jetstream.create_stream(mirror))
    line = no(shipper(server, "streams", "--force", SHIPPER_STREAM="copy", SHIPPER_SUBJECT="copy"))
    assert "stream copy-p0 has mirror logs-p0, which cannot be changed" in line


@pytest.mark.parametrize("other", [{"retention": "interest"}, {"subjects": ["else.>"]}])
def test_a_stream_that_was_made_for_something_else_is_changed_by_force_only(
    server: NatsServer, other: dict[str, Any]
) -> None:
    made = {"name": "logs-p1", "subjects": ["shipper.p1.>"], "storage": "file", "max_bytes": MIB, **other}
    ask(server, lambda jetstream: jetstream.create_stream(made))
    before = everything(server)
    line = no(shipper(server, "streams"))
    ((field, value),) = other.items()
    assert "SHIPPER_STREAM=logs: stream logs-p1 " in line
    assert "".join(value) in line
    assert "--force" in line
    assert everything(server) == before
    assert "updated logs-p1: " in streams(server, "--force")
    assert config_of(server, "logs-p1")[field] == {"retention": "limits", "subjects": ["shipper.p1.>"]}[field]
    assert streams(server, partitions=2) == "unchanged logs-p0\nunchanged logs-p1\n"


@pytest.mark.parametrize("subject", ["shipper.>", ">", "shipper.p1.>", "shipper.p1.web1", "*.p1.*"])
def test_a_subject_that_another_stream_has_is_never_taken(server: NatsServer, subject: str) -> None:
    made = {"name": "other", "subjects": [subject], "storage": "file", "max_bytes": MIB}
    if subject in (">", "*.p1.*"):
        # What overlaps with the API is only taken without acknowledgements.
        made["no_ack"] = True
    ask(server, lambda jetstream: jetstream.create_stream(made))
    before = config_of(server, "other")
    for arguments in ((), ("--force",)):
        line = no(shipper(server, "streams", *arguments))
        assert "SHIPPER_SUBJECT=shipper: stream other takes messages of shipper.p" in line
        assert "nats stream rm other" in line
    assert list(everything(server)) == ["other"]
    assert config_of(server, "other") == before


def test_another_name_for_the_streams_that_are_there_is_recognized(server: NatsServer) -> None:
    streams(server)
    line = no(shipper(server, "streams", SHIPPER_STREAM="log"))
    assert "or is SHIPPER_STREAM=logs meant?" in line
    assert line.endswith("(and so with 2 other streams)\n")
    assert set(everything(server)) == {"logs-p0", "logs-p1", "logs-p2"}


def test_a_broker_without_room_keeps_what_was_made_and_a_second_run_goes_on(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", jetstream_config(tmp_path, "50MB")) as server:
        result = shipper(server, "streams", partitions=30)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert "SHIPPER_STREAM_MAX_BYTES=10MiB: stream logs-p5 is not created: " in result.stderr
        assert "insufficient storage resources available (10047)" in result.stderr
        assert "max_file_store" in result.stderr
        made = ["logs-p%d" % number for number in range(5)]
        assert sorted(everything(server)) == made, "the server has room for five"
        assert [line.partition(" on ")[0] for line in result.stdout.splitlines()] == ["created " + n for n in made]
        server.kill()
    with NatsServer(tmp_path / "nats", jetstream_config(tmp_path, "500MB")) as server:
        lines = streams(server, partitions=30).splitlines()
        assert lines[:5] == ["unchanged " + name for name in made]
        assert sum(line.startswith("created") for line in lines) == 25


def test_a_broker_without_room_says_in_json_what_was_made(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", jetstream_config(tmp_path, "15MB")) as server:
        result = shipper(server, "streams", "--json")
        assert result.returncode == 2
        assert [row["action"] for row in json.loads(result.stdout)] == ["created"]
        result = shipper(server, "streams", SHIPPER_STREAM_MAX_BYTES="20MiB", partitions=1)
        assert "is not updated: insufficient storage" in no(result)


def test_more_replicas_than_servers_are_named(server: NatsServer) -> None:
    line = no(shipper(server, "streams", SHIPPER_STREAM_REPLICAS="3"))
    assert "SHIPPER_STREAM_REPLICAS=3: stream logs-p0 is not created: " in line
    assert "cluster" in line


def test_an_unreachable_server_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = "nats://user:s3cret@127.0.0.1:%d" % port
    line = no(shipper(url, "streams"))
    assert "cannot connect to NATS at nats://127.0.0.1:%d: Connection refused" % port in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "config",
    ["", 'accounts { A { users: [{ user: a, password: b }] } }\nno_auth_user: a\njetstream { store_dir: "%s" }'],
)
def test_a_server_or_account_without_jetstream_is_named(tmp_path: Path, config: str) -> None:
    with NatsServer(tmp_path, config % (tmp_path / "store") if config else "") as server:
        for command in (("streams",), ("forget", "archive")):
            line = no(shipper(server, *command))
            assert "JetStream is not enabled at nats://127.0.0.1:%d" % server.port in line


def test_a_user_who_may_not_is_told_so(tmp_path: Path) -> None:
    permissions = '{ publish: ["$JS.API.STREAM.INFO.*", "_INBOX.>"] }'
    users = "authorization { users = [{ user: a, password: b, permissions: %s }] }" % permissions
    with NatsServer(tmp_path, jetstream_config(tmp_path) + "\n" + users) as server:
        url = "nats://a:b@127.0.0.1:%d" % server.port
        line = no(shipper(url, "streams"))
        assert "nats://127.0.0.1:%d does not let this user work on the streams: " % server.port in line


def test_an_old_server_is_named_with_its_version() -> None:
    def serve(listener: socket.socket) -> None:
        # No wheel has a server that old; it says who it is and answers pings.
        while True:
            try:
                connection, _nothing = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(
                    b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"headers":true}\r\n'
                )
                while data := connection.recv(4096):
                    connection.sendall(b"PONG\r\n" * data.count(b"PING\r\n"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        line = no(shipper("nats://127.0.0.1:%d" % listener.getsockname()[1], "streams"))
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert "is nats-server 2.9.10, and durable mode needs 2.10.0 or newer" in line


def test_a_thousand_partitions_are_made_and_found_unchanged_in_seconds(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", jetstream_config(tmp_path, "2GB")) as server:
        limits = {"SHIPPER_STREAM_MAX_BYTES": "1MiB"}
        assert streams(server, partitions=1000, **limits).count("created ") == 1000
        begun = time.monotonic()
        assert streams(server, partitions=1000, **limits) == "unchanged: 1000 of 1000 streams\n"
        assert time.monotonic() - begun < 20


def make_group(server: NatsServer, group: str, *names: str, host: str = "archive1.example.net") -> None:
    metadata = {"shipper-host": host, "shipper-ledger": "1"}
    config = {"name": group, "durable_name": group, "ack_policy": "all", "metadata": metadata}

    async def body(jetstream: JetStream) -> None:
        for name in names:
            await jetstream.create_consumer(name, config)

    ask(server, body)


def forgotten(server: NatsServer, group: str) -> list[int]:
    """When each stream was told, as far as it was."""
    stamps = [config["metadata"].get("shipper-forgotten-" + group) for config, *_rest in everything(server).values()]
    return [int(stamp) for stamp in stamps if stamp is not None]


def test_a_forgotten_group_is_gone_from_every_stream_and_each_says_since_when(server: NatsServer) -> None:
    streams(server)
    make_group(server, "archive", "logs-p0", "logs-p2")
    make_group(server, "second", "logs-p0", "logs-p1")
    store(server, "logs-p2", 2)
    begun = time.time_ns()
    result = shipper(server, "forget", "archive")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "logs-p0: deleted the position of archive, last of archive1.example.net, with 0 messages not read",
        "logs-p2: deleted the position of archive, last of archive1.example.net, with 2 messages not read",
        "archive is forgotten on 3 streams",
    ]
    after = everything(server)
    assert [after["logs-p%d" % number][3] for number in range(3)] == [["second"], ["second"], []]
    stamps = forgotten(server, "archive")
    assert len(stamps) == 3
    assert all(begun < stamp < time.time_ns() for stamp in stamps)
    assert forgotten(server, "second") == []
    assert after["logs-p2"][2] == 2
    assert streams(server) == "unchanged logs-p0\nunchanged logs-p1\nunchanged logs-p2\n"
    assert len(forgotten(server, "archive")) == 3


def test_forgetting_again_ends_what_was_begun(server: NatsServer) -> None:
    streams(server)
    make_group(server, "archive", "logs-p1")
    result = shipper(server, "forget", "--json", "archive")
    assert json.loads(result.stdout) == {
        "group": "archive",
        "streams": ["logs-p0", "logs-p1", "logs-p2"],
        "deleted": [{"stream": "logs-p1", "host": "archive1.example.net", "not_read": 0}],
    }
    first = forgotten(server, "archive")
    result = shipper(server, "forget", "archive")
    assert (result.returncode, result.stdout) == (0, "archive is forgotten on 3 streams\n")
    assert min(forgotten(server, "archive")) > max(first)


def test_a_group_that_still_runs_is_not_forgotten(server: NatsServer) -> None:
    streams(server)
    make_group(server, "archive", "logs-p0", host="archive0")
    make_group(server, "archive", "logs-p1")
    before = everything(server)

    async def body(jetstream: JetStream) -> str:
        link = jetstream.link
        pull = b'{"batch": 1, "expires": 30000000000}'
        await link.send("$JS.API.CONSUMER.MSG.NEXT.logs-p1.archive", pull, link.inbox())
        await link.barrier()
        result = await asyncio.get_running_loop().run_in_executor(None, lambda: shipper(server, "forget", "archive"))
        return no(result)

    line = ask(server, body)
    assert "GROUP=archive: it still runs, archive1.example.net reads logs-p1: stop its consumers first" in line
    assert everything(server) == before
    # Whoever pulled has gone with its connection.
    assert shipper(server, "forget", "archive").returncode == 0


def test_a_group_that_no_stream_knows_changes_nothing(server: NatsServer) -> None:
    streams(server)
    make_group(server, "archive", "logs-p0")
    looker_on = {"name": "looker", "ack_policy": "none", "inactive_threshold": 60 * 10**9}
    ask(server, lambda jetstream: jetstream.create_consumer("logs-p0", looker_on))
    before = everything(server)
    for group in ("archiv", "looker"):
        assert "GROUP=%s: no stream of logs knows it" % group in no(shipper(server, "forget", group))
    assert everything(server) == before


def test_streams_that_are_not_there_cannot_forget(server: NatsServer) -> None:
    line = no(shipper(server, "forget", "archive"))
    assert "SHIPPER_STREAM=logs: there is no stream logs-p0, nor one of the other 2 partitions" in line
    streams(server, partitions=2)
    make_group(server, "archive", "logs-p1")
    result = shipper(server, "forget", "archive", partitions=3)
    assert result.stdout.endswith("archive is forgotten on 2 streams\n")
