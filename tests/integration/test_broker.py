# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection: what it refuses to send, what it survives, and each cure of natsfix on the nats-py installed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable

import pytest
import trustme
from nacl.signing import SigningKey

from shipper_runtime import broker as broker_module
from shipper_runtime.broker import Broker, Link
from shipper_runtime.connection import Message
from shipper_runtime.errors import ConnectionLost, PublishRefused, SettingError
from shipper_runtime.permissions import inbox_prefix
from shipper_runtime.settings import broker_settings
from tests.support import NatsServer, wait_for


def with_link(env: dict[str, str], body: Callable[[Broker, Link], Awaitable[Any]], seconds: float = 20.0) -> Any:
    """The result of body on a live link."""

    async def main() -> Any:
        broker = Broker(broker_settings(env), "test", inbox_prefix("test", "web1.example.net"))
        running = asyncio.create_task(broker.run())
        try:
            link = await asyncio.wait_for(broker.link(), seconds)
            return await asyncio.wait_for(body(broker, link), seconds)
        finally:
            running.cancel()
            await asyncio.wait({running})

    return asyncio.run(main())


def never_connects(env: dict[str, str], seconds: float = 2.0) -> None:
    with pytest.raises(asyncio.TimeoutError):
        with_link(env, _barrier, seconds)


async def _barrier(broker: Broker, link: Link) -> bool:
    await link.barrier()
    return True


async def _collect(link: Link, subject: str) -> list[Message]:
    messages: list[Message] = []

    link.subscribe(subject, messages.append)
    await link.barrier()
    return messages


def test_a_published_message_has_arrived_when_publish_returns(tmp_path: Path) -> None:
    async def body(broker: Broker, link: Link) -> None:
        messages = await _collect(link, "shipper.>")
        await link.publish("shipper.p0.web1", b"a\nb", {"Shipper-Life": "x"})
        assert [(m.subject, m.data, m.headers) for m in messages] == [
            ("shipper.p0.web1", b"a\nb", {"Shipper-Life": "x"})
        ]

    with NatsServer(tmp_path) as server:
        with_link({"NATS_URL": server.url}, body)


@pytest.mark.parametrize(
    ("config", "userinfo"),
    [
        ('authorization { user: "us@er", password: "p:w/" }', "us%40er:p%3Aw%2F@"),
        ('authorization { token: "t0ken" }', "t0ken@"),
    ],
)
def test_user_password_and_token_come_from_the_url(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, config: str, userinfo: str
) -> None:
    caplog.set_level("INFO")
    with NatsServer(tmp_path, config) as server:
        assert with_link({"NATS_URL": "nats://%s127.0.0.1:%d" % (userinfo, server.port)}, _barrier)
        never_connects({"NATS_URL": "nats://us%%40er:wr0ng@127.0.0.1:%d" % server.port})
    assert "Connected to nats://127.0.0.1:" in caplog.text
    assert "Authorization Violation" in caplog.text
    assert not any(secret in caplog.text for secret in ("us@er", "p:w/", "p%3Aw", "t0ken", "wr0ng"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, identity in (("server", "127.0.0.1"), ("client", "web1.example.net")):
        certificate = authority.issue_cert(identity)
        certificate.cert_chain_pems[0].write_to_path(str(folder / (name + ".pem")))
        certificate.private_key_pem.write_to_path(str(folder / (name + ".key")))
    return folder


def tls_config(folder: Path, more: str = "") -> str:
    return 'tls { cert_file: "%s/server.pem", key_file: "%s/server.key", ca_file: "%s/ca.pem", %s }' % (
        folder, folder, folder, more,
    )  # fmt: skip


@pytest.mark.parametrize("more", ["", "verify: true", "handshake_first: true"])
def test_tls_with_a_client_certificate(tmp_path: Path, certificates: Path, more: str) -> None:
    env = {
        "NATS_CA": str(certificates / "ca.pem"),
        "NATS_CERTIFICATE": str(certificates / "client.pem"),
        "NATS_KEY": str(certificates / "client.key"),
    }
    with NatsServer(tmp_path, tls_config(certificates, more), scheme="tls") as server:
        assert with_link({"NATS_URL": server.url, **env}, _barrier)


def test_a_server_that_the_ca_did_not_sign_is_refused(tmp_path: Path, certificates: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with NatsServer(tmp_path, tls_config(certificates), scheme="tls") as server:
        never_connects({"NATS_URL": server.url, "NATS_CA": str(tmp_path / "other.pem")})


def test_tls_is_used_where_the_server_only_offers_it(tmp_path: Path, certificates: Path) -> None:
    config = tls_config(certificates) + "\nallow_non_tls: true"
    with NatsServer(tmp_path, config) as server:
        assert with_link({"NATS_URL": server.url, "NATS_CA": str(certificates / "ca.pem")}, _barrier)


@pytest.mark.parametrize("by", ["scheme", "ca"])
def test_credentials_stay_here_when_the_connection_should_be_tls_and_is_not(
    tmp_path: Path, certificates: Path, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = bytearray()

    def strip_tls(listener: socket.socket) -> None:
        # Somebody in between who says what a server without TLS says, and listens.
        while True:
            try:
                connection, _nothing = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(
                    b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n'
                )
                connection.settimeout(1)
                while data := connection.recv(4096):
                    received.extend(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=strip_tls, args=(listener,), daemon=True)
        thread.start()
        scheme, env = ("tls", {}) if by == "scheme" else ("nats", {"NATS_CA": str(certificates / "ca.pem")})
        never_connects({"NATS_URL": "%s://user:s3cret@127.0.0.1:%d" % (scheme, listener.getsockname()[1]), **env})
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert bytes(received) == b""
    assert "does not offer TLS" in caplog.text


def test_creds_sign_the_nonce_without_nkeys(tmp_path: Path) -> None:
    operator, account, user = (SigningKey.generate() for _turn in range(3))
    names = {key: _public(kind, key) for kind, key in (("O", operator), ("A", account), ("U", user))}
    operator_jwt = _jwt(operator, names[operator], names[operator], "operator")
    account_jwt = _jwt(operator, names[operator], names[account], "account")
    user_jwt = _jwt(account, names[account], names[user], "user")
    seed = _base32(bytes([(18 << 3) | (20 << 3 >> 5), (20 << 3) & 0xFF]) + bytes(user))
    creds = tmp_path / "user.creds"
    creds.write_text(
        "-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n" % (user_jwt, seed)
    )
    config = 'operator: "%s"\nresolver: MEMORY\nresolver_preload: { %s: "%s" }' % (
        operator_jwt, names[account], account_jwt,
    )  # fmt: skip
    with NatsServer(tmp_path / "server", config) as server:
        assert with_link({"NATS_URL": server.url, "NATS_CREDS": str(creds)}, _barrier)
        never_connects({"NATS_URL": server.url})


def test_damaged_creds_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "creds").write_text("nothing")
    for path in (tmp_path / "creds", tmp_path / "missing"):
        with pytest.raises(SettingError, match=r"NATS_CREDS=.*cannot be read|NATS_CREDS=.*no user JWT"):
            Broker(broker_settings({"NATS_URL": "localhost", "NATS_CREDS": str(path)}), "test", "_INBOX.test")


def test_a_killed_server_is_reconnected_to(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:

        async def body(broker: Broker, link: Link) -> None:
            server.kill()
            await asyncio.wait_for(link.lost.wait(), 5)
            with pytest.raises(ConnectionLost):
                await link.publish("shipper.p0.web1", b"x", {})
            server.start()
            again = await broker.link()
            assert again is not link
            await again.publish("shipper.p0.web1", b"x", {})

        with_link({"NATS_URL": server.url}, body)


def test_a_second_server_is_tried_when_the_first_is_gone(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "a") as first, NatsServer(tmp_path / "b") as second:

        async def body(broker: Broker, link: Link) -> None:
            (first if link.url == first.url else second).kill()
            await asyncio.wait_for(link.lost.wait(), 5)
            assert (await broker.link()).url != link.url

        with_link({"NATS_URL": "%s,%s" % (first.url, second.url)}, body)


def test_a_server_that_stopped_answering_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "BARRIER_TIMEOUT", 2.0)
    monkeypatch.setattr(broker_module, "HEARTBEAT", 0.5)
    with NatsServer(tmp_path) as server:

        async def body(broker: Broker, link: Link) -> None:
            server_pid = server.pid
            os.kill(server_pid, signal.SIGSTOP)
            # A signal takes its time on a busy machine.
            wait_for(lambda: Path("/proc/%d/stat" % server_pid).read_text().rpartition(")")[2].split()[0] == "T")
            begun = time.monotonic()
            try:
                with pytest.raises(ConnectionLost):
                    await link.publish("shipper.p0.web1", b"x" * 500_000, {})
                assert time.monotonic() - begun < 9
            finally:
                os.kill(server_pid, signal.SIGCONT)
            await (await broker.link()).barrier()

        with_link({"NATS_URL": server.url}, body)


def test_a_subject_that_is_not_permitted_is_refused_and_not_lost(tmp_path: Path) -> None:
    permissions = '{ publish: ["shipper.p0.Web1", "_INBOX.>"] }'
    config = "authorization { users = [{ user: a, password: b, permissions: %s }] }" % permissions
    with NatsServer(tmp_path, config) as server:

        async def body(broker: Broker, link: Link) -> None:
            await link.publish("shipper.p0.Web1", b"x", {})
            with pytest.raises(PublishRefused, match=r"shipper\.p0\.Web2"):
                await link.publish("shipper.p0.Web2", b"x", {})
            await link.publish("shipper.p0.Web1", b"x", {})
            assert not link.lost.is_set()

        with_link({"NATS_URL": "nats://a:b@127.0.0.1:%d" % server.port}, body)


def test_the_inbox_belongs_to_the_identity(tmp_path: Path) -> None:
    mine = inbox_prefix("producer", "web1")
    permissions = '{ publish: ["shipper.>", "%s.>"], subscribe: ["%s.>"] }' % (mine, mine)
    config = "authorization { users = [{ user: a, password: b, permissions: %s }] }" % permissions
    assert not inbox_prefix("producer", "web1.example.net").startswith(mine + ".")
    with NatsServer(tmp_path, config) as server:

        async def main() -> None:
            broker = Broker(broker_settings({"NATS_URL": "nats://a:b@127.0.0.1:%d" % server.port}), "test", mine)
            running = asyncio.create_task(broker.run())
            link = await asyncio.wait_for(broker.link(), 5)
            await asyncio.wait_for(link.publish("shipper.p0.web1", b"x", {}), 5)
            running.cancel()
            await asyncio.wait({running})

        asyncio.run(main())


def _hpub(headers: bytes, payload: bytes = b"x") -> bytes:
    return b"HPUB shipper.p0.h %d %d\r\n%s%s\r\n" % (len(headers), len(headers) + len(payload), headers, payload)


HOSTILE = [
    b"PUB shipper.p0.a\x0bb 1\r\nx\r\n",
    b"PUB shipper.p0.web1\x0b2 1\r\nx\r\n",
    b"PUB shipper.p0.a\x0cb 1\r\nx\r\n",
    b"PUB shipper.p0.\xff\xfe 1\r\nx\r\n",
    b"PUB shipper.p0.a\x00b 1\r\nx\r\n",
    _hpub(b"NATS/1.0\r\n\r\n"),
    _hpub(b"NATS/1.0 \xff\xfe\xff\r\n\r\n"),
    _hpub(b"NATS/1.0"),
    _hpub(b"\r\n\r\n"),
    _hpub(b"N"),
    _hpub(b"NATS/1.0\r\n\xff: \xff\r\n\r\n"),
    _hpub(b"NATS/1.0 503\r\n\r\n", b""),
    _hpub(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b""),
]


@pytest.mark.parametrize("line", HOSTILE)
def test_no_message_stops_or_forges_the_ones_behind_it(tmp_path: Path, line: bytes) -> None:
    with NatsServer(tmp_path) as server:

        async def body(broker: Broker, link: Link) -> None:
            messages = await _collect(link, "shipper.p0.>")
            await asyncio.get_running_loop().run_in_executor(None, _send_raw, server.port, line)
            await link.publish("shipper.p0.web2", b"good", {})
            assert messages[-1].data == b"good"
            assert all(m.subject != "shipper.p0.web1" for m in messages)
            assert not link.lost.is_set()

        with_link({"NATS_URL": server.url}, body)


def _send_raw(port: int, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n' + line + b"PING\r\n")
        connection.settimeout(2)
        with contextlib.suppress(OSError):
            answer = b" "
            while answer and b"PONG" not in answer:
                answer = connection.recv(65536)


def _base32(data: bytes) -> str:
    # github.com/nats-io/nkeys: base32 of prefix, key and CRC-16/XMODEM, low byte first.
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _turn in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
            crc &= 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")


def _public(kind: str, key: SigningKey) -> str:
    prefix = {"O": 14 << 3, "A": 0, "U": 20 << 3}[kind]
    return _base32(bytes([prefix]) + bytes(key.verify_key))


def _jwt(signer: SigningKey, issuer: str, subject: str, kind: str) -> str:
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
    claims: dict[str, Any] = {
        "iat": 1700000000, "iss": issuer, "name": kind, "sub": subject,
        "nats": {"type": kind, "version": 2, **({} if kind == "operator" else {"pub": {}, "sub": {}})},
    }  # fmt: skip
    if kind == "account":
        claims["nats"] = {"type": kind, "version": 2, "limits": {**limits, "wildcards": True}}
    elif kind == "user":
        claims["nats"].update(subs=-1, data=-1, payload=-1)
    claims["jti"] = _base32(hashlib.sha256(json.dumps(claims).encode()).digest())
    header = _base64url(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = header + "." + _base64url(json.dumps(claims).encode())
    return signed + "." + _base64url(signer.sign(signed.encode()).signature)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
