# SPDX-License-Identifier: GPL-3.0-or-later
"""Who the hosts of a fleet are to the brokers, what is wrong with that, and what each may do. Pure; used on the
controller only.

A problem is one sentence for an operator, as in fleet.py; the secret is never in one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import permissions
from .partition import is_host
from .permissions import ACCOUNT, ADMIN, PRODUCERS, Allowed

AUTH, TLS, SECRET = "shipper_auth", "shipper_tls", "shipper_secret"
IDENTITY, GENERATION = "shipper_identity", "shipper_identity_generation"
PLAIN = "consumer_plain"
# What a broker may say of its own.
BROKERS_OWN = {AUTH: "broker_auth", TLS: "broker_tls"}
VARIABLES = (AUTH, TLS, SECRET, IDENTITY, GENERATION, PLAIN, *BROKERS_OWN.values())
"""What is looked at before anything is changed."""
HOSTNAME = "producer_hostname"
SUBJECTS = {"producer": ("producer_subject", "shipper_subject"), "consumer": ("consumer_subject", "shipper_subject")}
STREAMS = {"producer": ("producer_stream", "shipper_stream"), "consumer": ("consumer_stream", "shipper_stream")}
GROUPS = ("consumer_group", "shipper_group")
DEFAULT_GROUP = "archive"
ALL_VARIABLES = (*VARIABLES, HOSTNAME, *GROUPS, *dict.fromkeys(SUBJECTS["producer"] + SUBJECTS["consumer"]),
                 *dict.fromkeys(STREAMS["producer"] + STREAMS["consumer"]))  # fmt: skip
"""What says who may do what."""
NONE = "none"
SECRET_LEAST = 32
_CHOICES = {AUTH: (NONE, "password", "mtls"), TLS: (NONE, "private", "provided")}
_NAMED = 3

Inventory = Mapping[str, Mapping[str, Any]]


class IdentityProblem(ValueError):
    """Variables that say nothing about who may do what: one line with the remedy."""


def problems(
    inventory: Inventory, members: Sequence[str], consumers: Iterable[str], brokers: Sequence[str] = ()
) -> list[str]:
    """What is wrong; members are all hosts that ship or archive, in the inventory, as the brokers, with those of
    VARIABLES that are set."""
    found: list[str] = []
    auth, tls = (_agreed(found, inventory, members, brokers, name) for name in (AUTH, TLS))
    if auth == "mtls" and tls == NONE:
        found.append("shipper_auth=mtls needs certificates, and shipper_tls is none: use private or provided")
    found += [
        "%s=%s for %s: use accept or reject" % (PLAIN, inventory[host][PLAIN], host)
        for host in consumers
        if inventory[host].get(PLAIN) not in (None, "", "accept", "reject")
    ]
    if auth in (None, NONE):
        return found
    if not members:
        # Brokers without users would be open to everybody.
        found.append(
            "shipper_auth is %s, and there is no host that ships or archives: add them, or leave shipper_auth out "
            "until there are" % auth
        )
    if auth == "password":
        found += _check_secret(inventory, list(dict.fromkeys([*members, *brokers])))
    found += _check_names(inventory, members)
    for host in consumers:
        if inventory[host].get(PLAIN) == "accept":
            found.append(
                "consumer_plain=accept for %s: lines without headers may be anybody's, and shipper_auth is %s; use "
                "reject, or take it out" % (host, auth)
            )
    return found


def identity(variables: Mapping[str, Any], host: str) -> str:
    """A host's name to the brokers."""
    return _first_said(variables, (IDENTITY,), host)


def hostname(variables: Mapping[str, Any], host: str) -> str:
    """What a host ships as."""
    return _first_said(variables, (HOSTNAME,), host)


def group_of(variables: Mapping[str, Any]) -> str:
    """The group of a host that archives. An empty one is none, as in the program's settings."""
    return _first_said(variables, GROUPS, DEFAULT_GROUP)


def broker_users(
    inventory: Inventory,
    producers: Sequence[str],
    read_partitions: Mapping[str, Sequence[int]],
    partitions: int,
    owners: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The users of the brokers, as permissions.accounts() takes them; none without shipper_auth.

    inventory has those of ALL_VARIABLES that are set; read_partitions is what each archive host reads; owners are rows
    of ``shipper status --json``: who has a partition still may release it. Raises IdentityProblem.
    """
    members = list(dict.fromkeys([*producers, *read_partitions]))
    auth = inventory[members[0]].get(AUTH) if members else None
    if auth in (None, "", NONE):
        return []
    rights: dict[str, Allowed] = defaultdict(Allowed)
    for host in producers:
        variables = inventory[host]
        prefix, stream = _where(variables, host, "producer")
        rights[host] |= permissions.producer(prefix, partitions, hostname(variables, host), stream)
    kept = _kept(owners)
    for host, numbers in read_partitions.items():
        variables = inventory[host]
        prefix, stream = _where(variables, host, "consumer")
        group = group_of(variables)
        numbers = sorted({*numbers, *kept.get((host, group), ())})
        rights[host] |= permissions.consumer(prefix, numbers, host, stream, group)
    users = []
    for host in members:
        account = ACCOUNT if host in read_partitions else PRODUCERS
        users.append(_user(inventory[host], identity(inventory[host], host), account, rights[host]))
    users.append(_user({**inventory[members[0]], GENERATION: 1}, ADMIN, ACCOUNT, permissions.admin()))
    return users


def _user(variables: Mapping[str, Any], name: str, account: str, rights: Allowed) -> dict[str, Any]:
    user: dict[str, Any] = {"name": name, "account": account}
    if variables[AUTH] == "password":
        generation = _generation(variables.get(GENERATION))
        user["password"] = permissions.password(str(variables.get(SECRET, "")), name, generation or 1)
    return {**user, "publish": list(rights.publish), "subscribe": list(rights.subscribe)}


def _kept(owners: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], set[int]]:
    kept: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in owners:
        if row.get("owner") and row.get("group") and not row.get("released"):
            kept[str(row["owner"]), str(row["group"])].add(int(row["partition"]))
    return kept


def _where(variables: Mapping[str, Any], host: str, role: str) -> tuple[str, str | None]:
    prefix = _value(variables, SUBJECTS[role])
    if not prefix:
        raise IdentityProblem("shipper_subject is not set for %s: name what all subjects begin with" % host)
    return str(prefix), str(_value(variables, STREAMS[role]) or "") or None


def _said(variables: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any] | None:
    """The first of these variables that is set and not empty, and its value."""
    return next(((name, variables[name]) for name in names if variables.get(name) not in (None, "")), None)


def _first_said(variables: Mapping[str, Any], names: Iterable[str], otherwise: str) -> str:
    """As text, for a name may be a number in an inventory."""
    said = _said(variables, names)
    return otherwise if said is None else str(said[1])


def _value(variables: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((variables[name] for name in names if variables.get(name) is not None), None)


def _agreed(
    found: list[str], inventory: Inventory, members: Sequence[str], brokers: Sequence[str], name: str
) -> str | None:
    """What all say, or None where they do not, or say what is none of the choices."""
    choices = _CHOICES[name]
    claims: dict[str, list[str]] = defaultdict(list)
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for host in dict.fromkeys([*members, *brokers]):
        names = (BROKERS_OWN[name], name) if host in brokers else (name,)
        said_by, value = _said(inventory[host], names) or (name, NONE)
        claims[str(value)].append(host)
        if value not in choices:
            wrong[said_by, str(value)].append(host)
    for (said_by, text), hosts in sorted(wrong.items()):
        found.append("%s=%s for %s: %s" % (said_by, text, named(hosts), use_one_of(choices)))
    if len(claims) > 1:
        listed = ", ".join("%s for %s" % (text, named(hosts)) for text, hosts in sorted(claims.items()))
        found.append(
            "the fleet disagrees about %s: %s; give all hosts the same, such as in group_vars/all" % (name, listed)
        )
    return next(iter(claims), NONE) if len(claims) < 2 and not wrong else None


def _check_secret(inventory: Inventory, members: Sequence[str]) -> list[str]:
    remedy = "put %d random characters or more into a vault, for all hosts" % SECRET_LEAST
    secrets = {host: str(inventory[host].get(SECRET) or "") for host in members}
    missing = [host for host, secret in secrets.items() if not secret]
    short = [host for host, secret in secrets.items() if 0 < len(secret) < SECRET_LEAST]
    if missing:
        return ["shipper_secret is not set for %s, and shipper_auth is password: %s" % (named(missing), remedy)]
    if short:
        return ["shipper_secret is shorter than %d characters for %s: %s" % (SECRET_LEAST, named(short), remedy)]
    if len(set(secrets.values())) > 1:
        return ["the fleet has more than one shipper_secret: %s" % remedy]
    return []


def _check_names(inventory: Inventory, members: Sequence[str]) -> list[str]:
    found = []
    seen: dict[str, str] = {}
    for host in members:
        name = identity(inventory[host], host)
        generation = inventory[host].get(GENERATION)
        if name == ADMIN:
            found.append("the identity %s of %s is the operator's: give it another shipper_identity" % (name, host))
        elif not is_host(name):
            found.append(
                "the identity %s of %s cannot be a user's name: use 1 to 253 ASCII letters, digits, - _ and ., without "
                "empty labels, in shipper_identity" % (name, host)
            )
        elif seen.setdefault(name, host) != host:
            found.append(
                "%s and %s both have the identity %s: give them different names in shipper_identity"
                % (seen[name], host, name)
            )
        if generation is not None and _generation(generation) is None:
            found.append("%s=%s for %s: use a whole number, 1 or more" % (GENERATION, generation, host))
    return found


def _generation(value: Any) -> int | None:
    """A number as an inventory or the command line has it; 1 where none is said."""
    if value is None or value == "":
        return 1
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 and not isinstance(value, bool) else None


def use_one_of(choices: Sequence[object]) -> str:
    """The remedy where something else was said."""
    return "use %s or %s" % (", ".join(map(str, choices[:-1])), choices[-1])


def named(names: Sequence[str]) -> str:
    """Names in a sentence: the first few, and how many more there are."""
    if len(names) <= _NAMED:
        return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return "%s and %d more" % (", ".join(names[:_NAMED]), len(names) - _NAMED)
