# SPDX-License-Identifier: GPL-3.0-or-later
"""shipper status against a real server: partitions, groups, hosts, and what is wrong with each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable

import pytest

from shipper_runtime.broker import Link, connected
from shipper_runtime.connection import Message
from shipper_runtime.errors import ApiError
from shipper_runtime.jetstream import STREAM_FULL, JetStream, place
from shipper_runtime.partition import host_subject
from shipper_runtime.permissions import ADMIN_INBOX
from shipper_runtime.pull import Pull
from shipper_runtime.settings import broker_settings
from tests.support import NatsServer, run_shipper

MIB = 1024 * 1024


def jetstream(folder: Path) -> str:
    return 'jetstream { store_dir: "%s" }' % (folder / "store")


def settings(server: NatsServer, partitions: int = 0) -> dict[str, str]:
    return {
        "NATS_URL": server.url,
        "SHIPPER_SUBJECT": "shipper",
        "SHIPPER_STREAM": "logs",
        "SHIPPER_PARTITIONS": str(partitions),
    }


def with_api(url: str, body: Callable[[JetStream], Awaitable[Any]]) -> Any:
    """The result of body with the API of a server."""

    async def main() -> Any:
        async with connected(broker_settings({"NATS_URL": url}), "test", ADMIN_INBOX) as link:
            return await asyncio.wait_for(body(JetStream(link)), 20)

    return asyncio.run(main())


async def make_stream(api: JetStream, number: int, max_bytes: int = MIB) -> None:
    await api.create_stream(
        {
            "name": "logs-p%d" % number,
            "subjects": ["shipper.p%d.>" % number],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_bytes": max_bytes,
            "allow_direct": True,
            "num_replicas": 1,
        }
    )


async def make_group(api: JetStream, number: int, name: str, ledger: bool = True) -> None:
    metadata = {"shipper-host": "archive1", **({"shipper-ledger": "1234"} if ledger else {})}
    config = {"name": name, "durable_name": name, "ack_policy": "all", "deliver_policy": "all", "metadata": metadata}
    await api.create_consumer("logs-p%d" % number, config)


async def commit(link: Link, number: int, group: str, sequence: int) -> None:
    """Have a group read up to a sequence and acknowledge it."""
    pull = Pull(link, "logs-p%d" % number, group)
    await pull.start()
    found: list[Message] = []
    while not found or _sequence(found[-1]) < sequence:
        found += await pull.messages(5)
    await pull.close()
    for msg in found:
        if _sequence(msg) == sequence:
            await link.request(msg.reply, b"+ACK")


def _sequence(msg: Message) -> int:
    where = place(msg.reply)
    assert where is not None
    return where.sequence


async def publish(api: JetStream, number: int, host: str, count: int = 1, payload: bytes = b"line") -> None:
    for _turn in range(count):
        await api.publish(host_subject("shipper", number, host), payload, {}, "logs-p%d" % number)


def status(server: NatsServer, *arguments: str, partitions: int = 0) -> list[dict[str, Any]]:
    result = run_shipper("status", "--json", *arguments, env=settings(server, partitions))
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    return rows


def test_each_partition_and_group_is_a_row(tmp_path: Path) -> None:
    async def prepare(api: JetStream) -> None:
        for number in (0, 1, 2):
            await make_stream(api, number)
        await make_group(api, 0, "archive")
        await make_group(api, 0, "copy", ledger=False)
        # No durable, no group: somebody looks on.
        await api.create_consumer("logs-p0", {"name": "looker", "ack_policy": "none", "mem_storage": True})
        await make_group(api, 1, "archive")
        await publish(api, 0, "web1", 10)
        await commit(api.link, 0, "archive", 7)

    with NatsServer(tmp_path, jetstream(tmp_path)) as server:
        with_api(server.url, prepare)
        rows = status(server, partitions=4)
        text = run_shipper("status", env=settings(server, 4))
    keys = ("partition", "stream", "group", "owner", "released", "lag_messages", "problem")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (0, "logs-p0", "archive", "archive1", False, 3, None),
        (0, "logs-p0", "copy", None, True, 10, None),
        (1, "logs-p1", "archive", "archive1", False, 0, None),
        (2, "logs-p2", None, None, False, None, "no group"),
        (3, "logs-p3", None, None, False, None, "no stream"),
    ]
    first = rows[0]
    assert first["bytes"] > 400 and first["max_bytes"] == MIB
    assert 0 < first["lag_seconds"] < 15 and 0 < first["last_commit_seconds"] < 15
    assert rows[1]["last_commit_seconds"] is None and rows[2]["lag_seconds"] == 0
    assert not any(row["full"] or row["holds_back"] for row in rows)
    assert text.returncode == 0
    assert len(text.stdout.splitlines()) == 6
    assert "no stream" in text.stdout and "released" in text.stdout


def test_a_full_stream_is_named_and_so_is_the_group_that_holds_it_back(tmp_path: Path) -> None:
    async def prepare(api: JetStream) -> None:
        await make_stream(api, 0)
        await make_group(api, 0, "archive")
        await make_group(api, 0, "nobody")
        await publish(api, 0, "web1", 13, b"x" * 80_000)
        with pytest.raises(ApiError) as refused:
            await publish(api, 0, "web1", 1, b"x" * 80_000)
        assert refused.value.err_code == STREAM_FULL
        await commit(api.link, 0, "archive", 13)

    with NatsServer(tmp_path, jetstream(tmp_path)) as server:
        with_api(server.url, prepare)
        rows = status(server)
    assert [(row["group"], row["full"], row["holds_back"]) for row in rows] == [
        ("archive", True, False),
        ("nobody", True, True),
    ]


def test_a_broker_without_room_is_named(tmp_path: Path) -> None:
    config = jetstream(tmp_path) + (
        "\naccounts { logs { jetstream { max_file: 2MB }, users: [{ user: u, password: p }] } }"
    )

    async def prepare(api: JetStream) -> None:
        await make_stream(api, 0, max_bytes=2_080_000)
        await publish(api, 0, "web1", 20, b"x" * 100_000)

    with NatsServer(tmp_path, config) as server:
        url = "nats://u:p@127.0.0.1:%d" % server.port
        with_api(url, prepare)
        result = run_shipper("status", "--json", env={**settings(server), "NATS_URL": url})
    assert [row["broker_full"] for row in json.loads(result.stdout)] == [True]


def test_hosts_say_whether_their_last_message_is_committed(tmp_path: Path) -> None:
    async def prepare(api: JetStream) -> None:
        for number in (0, 1):
            await make_stream(api, number)
        await make_group(api, 0, "archive")
        await make_group(api, 0, "copy")
        await publish(api, 0, "web1.example.net", 3)
        await publish(api, 0, "web2", 4, b"x" * 1000)
        await publish(api, 1, "web3")
        # What is no host's is nobody's.
        await api.publish("shipper.p0.a+b", b"x", {}, "logs-p0")
        await commit(api.link, 0, "archive", 7)
        await commit(api.link, 0, "copy", 5)

    with NatsServer(tmp_path, jetstream(tmp_path)) as server:
        with_api(server.url, prepare)
        rows = status(server, "--hosts", partitions=2)
        text = run_shipper("status", "--hosts", env=settings(server, 3))
        assert with_api(server.url, lambda api: api.stream_info("logs-p1"))["state"]["consumer_count"] == 0
    keys = ("host", "partition", "sequence", "committed", "behind")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("web1.example.net", 0, 3, True, {"archive": 0, "copy": 0}),
        ("web2", 0, 7, False, {"archive": 0, "copy": 2}),
        ("web3", 1, 1, None, {}),
    ]
    assert all(0 <= row["last_seen_seconds"] < 15 for row in rows)
    assert text.returncode == 0
    assert "copy 2 behind" in text.stdout
    assert text.stderr == "shipper: partition 2, logs-p2: no stream\n"


def test_hosts_end_while_messages_go_on_coming(tmp_path: Path) -> None:
    async def body(api: JetStream) -> list[dict[str, Any]]:
        await make_stream(api, 0, 100 * MIB)
        await publish(api, 0, "web1", 100)

        async def go_on() -> None:
            while True:
                await publish(api, 0, "web2", 1, b"x" * 100)

        going = asyncio.ensure_future(go_on())
        try:
            return await asyncio.get_running_loop().run_in_executor(None, lambda: status(server, "--hosts"))
        finally:
            going.cancel()
            await asyncio.wait({going})

    with NatsServer(tmp_path, jetstream(tmp_path)) as server:
        rows = with_api(server.url, body)
    assert [row["host"] for row in rows] == ["web1", "web2"]


def test_a_broker_that_cannot_be_asked_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "core") as server:
        result = run_shipper("status", env=settings(server))
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "$JS.API.INFO" in result.stderr
        unreachable = settings(server)
    result = run_shipper("status", env=unreachable)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "cannot connect" in result.stderr


def test_who_may_not_look_at_the_account_sees_the_partitions_all_the_same(tmp_path: Path) -> None:
    permissions = '{ publish: { deny: ["$JS.API.INFO"] } }'
    config = jetstream(tmp_path) + (
        "\nauthorization { users = [{ user: u, password: p, permissions: %s }] }" % permissions
    )
    with NatsServer(tmp_path, config) as server:
        url = "nats://u:p@127.0.0.1:%d" % server.port
        with_api(url, lambda api: make_stream(api, 1))
        result = run_shipper("status", "--json", env={**settings(server, 2), "NATS_URL": url})
    assert [row["problem"] for row in json.loads(result.stdout)] == ["no stream", "no group"]


def test_many_partitions_are_asked_in_parallel_and_in_order(tmp_path: Path) -> None:
    async def prepare(api: JetStream) -> None:
        for number in range(40):
            await make_stream(api, number)

    with NatsServer(tmp_path, jetstream(tmp_path)) as server:
        with_api(server.url, prepare)
        assert [row["partition"] for row in status(server, partitions=40)] == list(range(40))
