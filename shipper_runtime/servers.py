# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers of NATS_URL, with their secrets kept apart from what may be shown. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from .errors import SettingError

DEFAULT_PORT = 4222
_SCHEMES = ("nats", "tls")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_HOSTNAME = re.compile(r"[A-Za-z0-9._:%-]+\Z")
_REMEDY = "write nats://host:4222 or tls://host:4222, several separated by commas"


@dataclass(frozen=True)
class Server:
    """One server: url never holds a secret and may be logged; repr leaves the secrets out."""

    url: str
    tls: bool
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.url


def parse_servers(value: str, variable: str = "NATS_URL") -> tuple[Server, ...]:
    """The servers of a comma-separated list. Raises SettingError, whose text holds no user, password or token."""
    servers = []
    for part in value.split(","):
        text = part.strip()
        try:
            servers.append(_parse_server(text))
        except ValueError as problem:
            raise SettingError(variable, _without_secrets(text, value), "%s; %s" % (problem, _REMEDY)) from None
    return tuple(servers)


def with_credentials(value: str, user: str, password: str, tls: bool) -> str:
    """The servers of a comma-separated list with this user, unless it is empty, and its password; with tls all of them
    are tls://. Raises SettingError, whose text holds no secret."""
    parse_servers(value)
    if user and "@" in value:
        remedy = "it holds a user or a token already, and the host's own is to be put there; take it out"
        raise SettingError("NATS_URL", _without_secrets(value.split(",")[0].strip(), value), remedy)
    return ",".join(_with_credentials(part.strip(), user, password, tls) for part in value.split(","))


def _with_credentials(text: str, user: str, password: str, tls: bool) -> str:
    scheme, separator, rest = text.partition("://") if "://" in text else ("", "", text)
    if tls:
        scheme, separator = "tls", "://"
    if not user:
        return scheme + separator + rest
    credentials = "%s:%s@" % (quote(user, safe=""), quote(password, safe=""))
    return (scheme or "nats") + "://" + credentials + rest


def _parse_server(text: str) -> Server:
    if not text:
        raise ValueError("a server is missing")
    try:
        parts = urlsplit(text if "://" in text else "nats://" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("its port is not a number from 1 to 65535") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError("the scheme must be nats or tls")
    if not host or _HOSTNAME.match(host) is None:
        raise ValueError("it names no host")
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("nothing may follow the port")
    shown = "[%s]" % host if ":" in host else host
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Server(
        url="%s://%s:%d" % (parts.scheme, shown, port or DEFAULT_PORT),
        tls=parts.scheme == "tls",
        user=user if password is not None else None,
        password=password,
        # As in every NATS client: a user without a password is a token.
        token=user or None if password is None else None,
    )


def _without_secrets(part: str, whole: str) -> str:
    """part without what stands before an @; a comma in a password leaves a part that has none, so that hides all."""
    if "@" not in whole:
        return part
    if "@" not in part:
        return "***"
    scheme, separator, _nothing = part.partition("://")
    shown = scheme + separator if separator and _SCHEME.match(scheme) else ""
    return shown + "***@" + part.rpartition("@")[2]
