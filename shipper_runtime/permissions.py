# SPDX-License-Identifier: GPL-3.0-or-later
"""What each identity may publish and subscribe to on the broker, and the accounts that keep them apart. Pure.

Beside the code that needs it: a subject that a program begins to use belongs here too. docs/security.md has the
reasons; tests/integration/test_permissions.py runs the real programs with exactly this, and tries the attacks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .partition import host_subject, partition, partition_subject
from .settings import partition_stream

ADMIN = "shipper-admin"
"""The identity of the operator's commands."""
ADMIN_INBOX = "_INBOX.admin"
ACCOUNT, PRODUCERS = "SHIPPER", "SHIPPER_PRODUCERS"
"""Where the streams are, and where those are who only ship."""
_ANYBODY = "anybody"


@dataclass(frozen=True)
class Allowed:
    """Subjects, which may be patterns. Nothing else is permitted."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    def __or__(self, other: Allowed) -> Allowed:
        return Allowed(
            tuple(dict.fromkeys(self.publish + other.publish)),
            tuple(dict.fromkeys(self.subscribe + other.subscribe)),
        )


def inbox_prefix(role: str, host: str) -> str:
    """The inbox of one host, as one token, so that a permission for web1 does not cover web1.example.net."""
    return "_INBOX.%s=%s" % (role, host.replace(".", "="))


def producer(prefix: str, partitions: int, host: str, stream: str | None) -> Allowed:
    """Its own subject, and in durable mode the last message of its own subject."""
    number = partition(host, partitions)
    subject = host_subject(prefix, number, host)
    publish = [subject]
    if stream:
        publish.append("$JS.API.DIRECT.GET.%s.%s" % (partition_stream(stream, number), subject))
    return Allowed(tuple(publish)) | _inbox(inbox_prefix("producer", host))


def consumer(prefix: str, numbers: Iterable[int], host: str, stream: str | None, group: str) -> Allowed:
    """Its partitions: as a group's durable on their streams, or in core NATS as they come."""
    own = _inbox(inbox_prefix("consumer", host))
    if not stream:
        return Allowed((), tuple(partition_subject(prefix, number) for number in numbers)) | own
    publish: list[str] = []
    for number in numbers:
        publish += _durable(partition_stream(stream, number), group)
    return Allowed(tuple(publish)) | own


def admin() -> Allowed:
    """All of JetStream, and no line of anybody's but through it."""
    return Allowed(("$JS.API.>",)) | _inbox(ADMIN_INBOX)


def _inbox(prefix: str) -> Allowed:
    return Allowed((prefix + ".>",), (prefix + ".>",))


def _durable(stream: str, group: str) -> list[str]:
    api = ("STREAM.INFO.%s", "STREAM.MSG.GET.%s", "STREAM.PURGE.%s", "CONSUMER.LIST.%s")
    own = ("CONSUMER.INFO.%s.%s", "CONSUMER.CREATE.%s.%s", "CONSUMER.DELETE.%s.%s", "CONSUMER.MSG.NEXT.%s.%s")
    # With so many tokens and no others: a wildcard at the end would let an acknowledgement of another stream, whose
    # name stands where the domain is to be, pass for one of this.
    short = "$JS.ACK.%s.%s.*.*.*.*.*"
    long = "$JS.ACK.*.*.%s.%s.*.*.*.*.*"
    return [
        *("$JS.API." + each % stream for each in api),
        *("$JS.API." + each % (stream, group) for each in own),
        *(each % (stream, group) for each in (short, long, long + ".*")),
    ]


def password(secret: str, identity: str, generation: int = 1) -> str:
    """An identity's password, 43 characters; another one for each generation."""
    text = "shipper:%s" % identity if generation == 1 else "shipper:%s:%d" % (identity, generation)
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def accounts(users: Sequence[Mapping[str, Any]], prefixes: Iterable[str]) -> str:
    """nats-server's configuration of these users, each with name, account, publish, subscribe and perhaps a password;
    prefixes are what subjects begin with. Without users everybody may do everything, in the account of the streams.

    A server answers to any reply subject, in its own name and past the requester's permissions: whoever may publish to
    a stream could have it delete another one, with $JS.API.STREAM.DELETE.x as reply. So those who only ship are in an
    account of their own, which has no JetStream. What they may ask for are services of the other account, and their
    reply subjects mean nothing there.
    """
    services = [each % prefix for prefix in sorted(set(prefixes)) for each in ("%s.>", "$JS.API.DIRECT.GET.*.%s.>")]
    exports = [{"service": service, "accounts": [PRODUCERS]} for service in services]
    imports = [{"service": {"account": ACCOUNT, "subject": service}} for service in services]
    by_account: dict[str, list[dict[str, Any]]] = {ACCOUNT: [], PRODUCERS: []}
    for user in users:
        by_account[user["account"]].append(_user(user))
    if not users:
        by_account[ACCOUNT].append({"user": _ANYBODY, "password": _ANYBODY})
    return "".join(
        line + "\n"
        for line in (
            "accounts {",
            "  %s {" % ACCOUNT,
            "    jetstream: enabled",
            "    exports: " + _text(exports),
            *_users(by_account[ACCOUNT]),
            "  }",
            "  %s {" % PRODUCERS,
            "    imports: " + _text(imports),
            *_users(by_account[PRODUCERS]),
            "  }",
            "}",
            *(() if users else ("no_auth_user: %s" % _ANYBODY,)),
        )
    )


def _text(value: object) -> str:
    """As nats-server reads it: it knows no \\u escapes."""
    return json.dumps(value, ensure_ascii=False)


def _users(users: Iterable[dict[str, Any]]) -> list[str]:
    return ["    users: [", *("      " + _text(user) for user in users), "    ]"]


def _user(user: Mapping[str, Any]) -> dict[str, Any]:
    permissions = {"publish": list(user["publish"]), "subscribe": list(user["subscribe"])}
    secret = {"password": user["password"]} if user.get("password") else {}
    return {"user": user["name"], **secret, "permissions": permissions}
