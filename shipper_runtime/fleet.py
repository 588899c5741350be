# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a fleet before anything is changed, and who reads what. Pure; used on the controller only.

A problem is one sentence for an operator: the variable as the operator wrote it, its value, and the remedy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import identities, values
from .assignment import distribute, partition_range
from .identities import HOSTNAME, group_of, hostname, named, use_one_of
from .partition import PARTITIONS_MAX, is_host

PREFIXES = ("producer", "consumer", "broker", "shipper")
# The inventory variables that concern more than one host.
PARTITIONS = {"producer": "producer_partitions", "consumer": "consumer_partitions", "fleet": "shipper_partitions"}
STREAM = "shipper_stream"
READ_PARTITIONS = "consumer_read_partitions"
VARIABLES = (*PARTITIONS.values(), STREAM, HOSTNAME, READ_PARTITIONS, *identities.GROUPS, *identities.VARIABLES)
# How many hosts at a time: Ansible would stumble over it only when it comes to them.
SERIAL = "shipper_serial"

_NAME_SUBJECT = "name what all subjects begin with, such as shipper"
_NAME_SERVERS = "name the servers, such as nats://nats1.example.net:4222"
# What the hosts of a role must be told, by one variable or another, and what to do about it.
NEEDED: dict[str, dict[tuple[str, ...], str]] = {
    "producer": {
        ("producer_files",): "name the files to ship",
        ("producer_subject", "shipper_subject"): _NAME_SUBJECT,
        ("producer_nats_url", "shipper_nats_url"): _NAME_SERVERS,
    },
    "consumer": {
        ("consumer_subject", "shipper_subject"): _NAME_SUBJECT,
        ("consumer_nats_url", "shipper_nats_url"): _NAME_SERVERS,
    },
}

# Of what there must be one at least; anything else that is counted may be 0.
LEAST = {"consumer_workers": 1, "shipper_certificate_days": 1}

# What Ansible takes for one.
_BOOLEANS = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "1", "0", "1.0", "0.0"))
Inventory = Mapping[str, Mapping[str, Any]]


@dataclass
class Plan:
    """Who reads what, for every consumer; and what stands in the way."""

    partitions: int = 0
    read_partitions: dict[str, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def plan_fleet(
    inventory: Inventory,
    producers: Sequence[str],
    consumers: Sequence[str] | None,
    default_partitions: Any = 0,
    limited: bool = False,
    brokers: Sequence[str] = (),
) -> Plan:
    """Look at all hosts at once. inventory holds those of VARIABLES that are set, for each host.

    Hosts of the inventory that are none of these count only where they say how many partitions there are.
    default_partitions holds where no host says so. consumers is None where it is not asked who reads, and limited says
    that there may be more of them.
    """
    plan = Plan()
    _agree_on_partitions(plan, inventory, producers, consumers or (), brokers, default_partitions)
    _check_names(plan, inventory, producers, consumers or ())
    members = list(dict.fromkeys([*producers, *(consumers or ())]))
    if len(brokers) == 2:
        plan.problems.append(
            "there are two brokers, %s, and neither can go on when the other is away: use one, or three"
            % named(brokers)
        )
    plan.problems += identities.problems(inventory, members, consumers or (), brokers)
    if plan.problems or consumers is None:
        return plan
    if producers and not consumers:
        plan.problems.append(
            "there is no consumer, so nobody reads %s: add the hosts that archive, or use the role producer in a "
            "playbook of your own if others do" % partition_range(max(plan.partitions, 1))
        )
    groups: dict[str, list[str]] = defaultdict(list)
    for host in consumers:
        groups[group_of(inventory[host])].append(host)
    for group, hosts in sorted(groups.items()):
        _assign_readers(plan, inventory, group, hosts, limited)
    return plan


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence for each name that is near to a known one, and is none itself."""
    parts = {tuple(name.split("_", 1)) for name in known if "_" in name}
    sentences = []
    for name in sorted(set(names)):
        prefix, *more = name.split("_", 1)
        rest = "".join(more)
        if not rest or (prefix, rest) in parts:
            continue
        near = [
            (distance, "%s_%s" % (known_prefix, known_rest))
            for known_prefix, known_rest in sorted(parts)
            for distance in (_far(prefix, rest, known_prefix, known_rest),)
            if distance is not None
        ]
        if near:
            sentences.append("%s is not a variable of this collection: write %s" % (name, min(near)[1]))
    return sentences


def wrong_values(inventory: Inventory, options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each value that its variable cannot have; options are those of the roles' specifications.

    Only what Ansible would refuse later, half-way through a run, or by the name of another variable.
    """
    claims: dict[tuple[str, str], list[str]] = defaultdict(list)
    output, rotate = (str(options.get(name, {}).get("default", "")) for name in (values.OUTPUT, values.ROTATE))
    # A fleet's values are the same for nearly all hosts.
    known: dict[tuple[str, str], tuple[str, str] | None] = {}
    known_together: dict[tuple[str, ...], tuple[str, str, str] | None] = {}
    for host, variables in inventory.items():
        found = []
        for name, value in variables.items():
            key = name, repr(value)
            if key not in known:
                known[key] = _problem(name, value, options.get(name, {}))
            problem = known[key]
            if problem is not None:
                found.append((name, *problem))
        if not found:
            given = tuple(repr(variables.get(name)) for name in values.TOGETHER)
            if given not in known_together:
                known_together[given] = values.problem_together(variables, output, rotate)
            together = known_together[given]
            if together is not None:
                found.append(together)
        for name, shown, remedy in found:
            claims["%s=%s" % (name, shown), remedy].append(host)
    return ["%s for %s: %s" % (claim, named(hosts), remedy) for (claim, remedy), hosts in sorted(claims.items())]


def unset(inventory: Inventory, members: Mapping[str, Sequence[str]], elsewhere: Iterable[str]) -> list[str]:
    """A sentence for each variable that hosts need and do not have. members are the hosts of each role; what is set for
    no host, and elsewhere, is set for all."""
    everywhere = set(elsewhere).difference(*inventory.values())
    lacking: dict[tuple[str, str], list[str]] = defaultdict(list)
    for role, hosts in members.items():
        for names, remedy in NEEDED[role].items():
            if everywhere.intersection(names):
                continue
            for host in hosts:
                if all(inventory[host].get(name) in (None, "", []) for name in names):
                    lacking[names[-1], remedy].append(host)
    return [
        "%s is not set for %s: %s" % (name, named(list(dict.fromkeys(hosts))), remedy)
        for (name, remedy), hosts in lacking.items()
    ]


def _problem(name: str, value: Any, option: Mapping[str, Any]) -> tuple[str, str] | None:
    remedy = _serial_remedy(value) if name == SERIAL else _remedy(name, value, option)
    return (str(value), remedy) if remedy else values.problem(name, value)


def _remedy(name: str, value: Any, option: Mapping[str, Any]) -> str:
    """What to do about a value, or nothing where it is fine. An empty one counts as not set."""
    if value is None or value == "":
        return ""
    choices, kind = option.get("choices"), option.get("type")
    # A level is a number in one inventory and a word in another.
    if choices and (isinstance(value, bool) or str(value) not in [str(choice) for choice in choices]):
        return use_one_of(choices)
    least = LEAST.get(name, 0)
    if kind == "int" and not (re.match(r"[0-9]{1,9}\Z", str(value)) and int(value) >= least):
        return "use a whole number, %d or more" % least
    if kind == "bool" and str(value).lower() not in _BOOLEANS:
        return "use true or false"
    if kind == "list" and not isinstance(value, (list, tuple)):
        return "use a list"
    if kind == "list" and option.get("required") and not value:
        return "name at least one"
    return ""


def _serial_remedy(value: Any) -> str:
    batches = value if isinstance(value, (list, tuple)) else [value]
    if batches and all(re.match(r"[1-9][0-9]*%?\Z", str(batch)) for batch in batches):
        return ""
    return "use a number of hosts, a percentage, or a list of these, such as [1, '25%', '100%']"


def _far(prefix: str, rest: str, known_prefix: str, known_rest: str) -> int | None:
    """How many slips lie between two names; None where they are different words. One half of the name must be right,
    and a short word that differs is another word."""
    if prefix == known_prefix:
        distance, length = _distance(rest, known_rest), len(known_rest)
    elif rest == known_rest:
        distance, length = _distance(prefix, known_prefix), len(known_prefix)
    else:
        return None
    if distance == 1 and length == 3 and sorted(prefix + rest) == sorted(known_prefix + known_rest):
        # Two letters that changed places are not another word.
        return distance
    return distance if distance <= (0 if length < 4 else 1 if length < 7 else 2) else None


def _distance(a: str, b: str) -> int:
    """How many letters were left out, added, replaced or swapped with their neighbour; 3 stands for 3 or more."""
    if abs(len(a) - len(b)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)


def _agree_on_partitions(
    plan: Plan,
    inventory: Inventory,
    producers: Sequence[str],
    consumers: Sequence[str],
    brokers: Sequence[str],
    default: Any,
) -> None:
    claims: dict[tuple[str, int | None], list[str]] = defaultdict(list)
    # The streams are made as the brokers say, who have no variable of their own.
    makers = [host for host in brokers if inventory[host].get(STREAM)]
    roles = (("fleet", makers), ("consumer", consumers), ("producer", producers))
    members = {host: role for role, hosts in roles for host in hosts}
    fleet = PARTITIONS["fleet"]
    for host, variables in inventory.items():
        # A role's own variable counts before the fleet's.
        name = PARTITIONS[members.get(host, "fleet")]
        value = variables.get(name)
        if value is None:
            name, value = fleet, variables.get(fleet)
        if value is None:
            if host in members:
                claims[fleet, None].append(host)
            continue
        number = whole_number(value)
        if number is None:
            plan.problems.append("%s=%s for %s: use a whole number, 0 or more" % (name, value, host))
        else:
            claims[name, number].append(host)
    numbers = {claim[1] for claim in claims}
    if len(numbers) > 1:
        plan.problems.append(
            "the fleet disagrees about the number of partitions: %s; give all hosts the same shipper_partitions, such "
            "as in group_vars/all"
            % ", ".join(
                "%s is %s for %s" % (name, "not set" if number is None else number, named(hosts))
                for (name, number), hosts in sorted(claims.items(), key=lambda claim: (-len(claim[1]), claim[1]))
            )
        )
        return
    said = numbers.pop() if numbers else None
    count = said if said is not None else whole_number(default)
    if count is None:
        plan.problems.append("%s=%s: use a whole number, 0 or more" % (PARTITIONS["fleet"], default))
    elif count > PARTITIONS_MAX:
        plan.problems.append("%s=%d: use %d or fewer" % (PARTITIONS["fleet"], count, PARTITIONS_MAX))
    plan.partitions = count or 0


def _check_names(plan: Plan, inventory: Inventory, producers: Sequence[str], consumers: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for host in producers:
        name = hostname(inventory[host], host)
        if not is_host(name):
            shown = "the host name %s" % host if name == host else "%s=%s for %s" % (HOSTNAME, name, host)
            plan.problems.append(
                "%s cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and ., without empty labels, "
                "in producer_hostname" % shown
            )
        elif seen.setdefault(name, host) != host:
            plan.problems.append(
                "%s and %s both ship as %s: give them different names in producer_hostname" % (seen[name], host, name)
            )
    plan.problems += [
        "the host name %s cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and ., without empty "
        "labels, in the inventory" % host
        for host in consumers
        if not is_host(host)
    ]


def _assign_readers(plan: Plan, inventory: Inventory, group: str, hosts: Sequence[str], limited: bool) -> None:
    """Who names partitions reads those and no others; the rest is shared by the other consumers of the group."""
    count = max(plan.partitions, 1)
    readers: dict[int, list[str]] = defaultdict(list)
    others = []
    for host in hosts:
        wanted = inventory[host].get(READ_PARTITIONS)
        if wanted in (None, "", []):
            others.append(host)
            continue
        numbers = [whole_number(item) for item in wanted] if isinstance(wanted, (list, tuple)) else [None]
        known = sorted({number for number in numbers if number is not None})
        if None in numbers or known[-1] >= count:
            plan.problems.append(
                "%s=%s for %s: use a list of whole numbers from 0 to %d, for shipper_partitions is %d"
                % (READ_PARTITIONS, wanted, host, count - 1, plan.partitions)
            )
        plan.read_partitions[host] = known
        for number in plan.read_partitions[host]:
            readers[number].append(host)
    unread = [number for number in range(count) if number not in readers]
    twice = [number for number in sorted(readers) if len(readers[number]) > 1]
    if others and limited:
        plan.problems.append(
            "consumer_hosts is empty and the run is limited, so the share of %s cannot be computed: name all hosts "
            "that archive in consumer_hosts" % named(others)
        )
    elif others:
        shares: dict[str, list[int]] = {host: [] for host in others}
        distribute(unread, shares, count)
        plan.read_partitions.update(shares)
    elif unread:
        plan.problems.append(
            "%s no reader in the group %s: add %s to %s of one of %s"
            % (
                _partitions(unread, "has", "have"),
                group,
                "it" if len(unread) == 1 else "them",
                READ_PARTITIONS,
                named(hosts),
            )
        )
    if twice:
        plan.problems.append(
            "%s more than one reader in the group %s, %s: take %s from %s of all but one"
            % (
                _partitions(twice, "has", "have"),
                group,
                named(sorted({host for number in twice for host in readers[number]})),
                "it" if len(twice) == 1 else "them",
                READ_PARTITIONS,
            )
        )


def whole_number(value: Any) -> int | None:
    """A number of partitions, or of a partition, as an inventory or the command line has it; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _partitions(numbers: Sequence[int], one: str, several: str) -> str:
    if len(numbers) == 1:
        return "partition %d %s" % (numbers[0], one)
    return "partitions %s %s" % (named([str(number) for number in numbers]), several)
