# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from shipper_runtime.errors import SettingError
from shipper_runtime.servers import parse_servers


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("localhost:4222", "nats://localhost:4222"),
        ("localhost", "nats://localhost:4222"),
        ("nats://a.example.net", "nats://a.example.net:4222"),
        ("tls://10.0.0.1:5222/", "tls://10.0.0.1:5222"),
        ("nats://[::1]:4222", "nats://[::1]:4222"),
        ("user:secret@localhost", "nats://localhost:4222"),
    ],
)
def test_a_server_is_shown_with_its_scheme_and_port(value: str, url: str) -> None:
    (server,) = parse_servers(value)
    assert str(server) == server.url == url
    assert "secret" not in repr(server)


def test_user_and_password_are_unquoted() -> None:
    (server,) = parse_servers("nats://us%40er:p%3Aw%2F@host")
    assert (server.user, server.password, server.token) == ("us@er", "p:w/", None)


def test_a_user_without_a_password_is_a_token() -> None:
    (server,) = parse_servers("tls://t0ken@host")
    assert (server.user, server.password, server.token, server.tls) == (None, None, "t0ken", True)


def test_several_servers_are_separated_by_commas() -> None:
    assert [server.url for server in parse_servers("a, tls://b:1")] == ["nats://a:4222", "tls://b:1"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a,,b",
        "http://a",
        "nats://",
        "nats://a:port",
        "nats://a:0",
        "nats://a:99999",
        "nats://a/path",
        "nats://user:s3cret@",
        "nats://user:s3cret@host:port",
        "nats://user:s3cret,s3cret@host",
        "ftp://user:s3cret@host",
        "nats://user:s3cret@host:4222/s?t",
        "nats://ho st",
    ],
)
def test_what_cannot_be_a_server_is_refused_without_its_secrets(value: str) -> None:
    with pytest.raises(SettingError, match="NATS_URL=") as caught:
        parse_servers(value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
