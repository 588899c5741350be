# SPDX-License-Identifier: GPL-3.0-or-later
"""What a torture does, and when: all of it drawn from the seed, before anything runs. Pure.

The same seed draws the same fleet and the same actions at the same times, each round by itself: round 7 is the same
whether 10 or 200 rounds are asked for. What the processes make of it depends on the machine and cannot be replayed.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

SERVER = "server"
GROUPS = ("a", "b")
ROUND_SECONDS = (1.6, 2.6)

_HOSTS = ("web1.example.net", "web2.example.net", "db1", "mail-1.example.net")
_FILES = ("app.log", "access.log")
# How often a kind is drawn in relation to the others.
_WEIGHTS = {
    "kill": 30,
    "stop": 14,
    "restart": 12,
    "cut": 12,
    "stall": 12,
    "disk": 9,
    "forget": 5,
    "flood": 6,
}
_ROTATIONS = {"rename": 8, "linger": 4, "copytruncate": 8, "delete": 4, "torn": 1}
KINDS = (*_WEIGHTS, "rotate", "rewind")
# A program that was just started again may be hit while it starts, but not in the same instant.
_BREATH = 0.1
_ATTEMPTS = 20


@dataclass(frozen=True)
class Host:
    """A producer: its name, its log files, and whether it is told their names or a glob."""

    name: str
    files: tuple[str, ...]
    glob: bool


@dataclass(frozen=True)
class Layout:
    """The fleet of a seed. workers holds for each group which partitions each of its workers reads; rotate is the
    period of the archive's files, duplicates the streams' window, max_bytes their limit, compress which producers and
    which groups compress."""

    partitions: int
    hosts: tuple[Host, ...]
    workers: dict[str, tuple[tuple[int, ...], ...]]
    rotate: str
    duplicates: str
    max_bytes: str
    compress: frozenset[str]

    @property
    def producers(self) -> list[str]:
        return [host.name for host in self.hosts]

    def consumers(self, group: str) -> list[str]:
        """The names of a group's workers: a1, a2."""
        return ["%s%d" % (group, number) for number in range(1, len(self.workers[group]) + 1)]

    @property
    def programs(self) -> list[str]:
        return [*self.producers, *(name for group in GROUPS for name in self.consumers(group))]

    @property
    def sources(self) -> list[str]:
        return ["%s/%s" % (host.name, file) for host in self.hosts for file in host.files]

    @property
    def disks(self) -> list[str]:
        return [*("archive-%s" % group for group in GROUPS), *("state-%s" % name for name in self.producers)]


@dataclass(frozen=True)
class Action:
    """At so many seconds of its round something befalls target and lasts so many seconds; how tells the rest."""

    at: float
    kind: str
    target: str
    seconds: float
    how: str = ""

    def __str__(self) -> str:
        text = "%5.2f s  %-8s %s" % (self.at, self.kind, self.target)
        text += " for %.2f s" % self.seconds if self.seconds else ""
        return text + (" (%s)" % self.how if self.how else "")


@dataclass(frozen=True)
class Round:
    """seconds of traffic with actions, oldest first; settle says whether all has to arrive before the next round.

    rewind says what befalls the server's store before the round, if nothing is under way: "" for nothing, "save" keeps
    a copy of it, "restore" puts that copy back: a broker that lost its tail.
    """

    number: int
    seconds: float
    actions: tuple[Action, ...]
    settle: bool
    rewind: str


def layout(seed: str) -> Layout:
    """The fleet of a seed."""
    chance = random.Random("%s:layout" % seed)
    partitions = chance.choice((3, 4))
    hosts = tuple(
        Host(name, _FILES[: chance.randint(1, 2)], chance.random() < 0.4) for name in _HOSTS[: chance.randint(3, 4)]
    )
    workers: dict[str, tuple[tuple[int, ...], ...]] = {}
    for group in GROUPS:
        numbers = list(range(partitions))
        chance.shuffle(numbers)
        half = partitions // 2
        shares = (numbers,) if chance.random() < 0.4 else (numbers[:half], numbers[half:])
        workers[group] = tuple(tuple(sorted(share)) for share in shares)
    return Layout(
        partitions=partitions,
        hosts=hosts,
        workers=workers,
        rotate=chance.choice(("2s", "5s", "1m")),
        # Shorter than many an outage here: repeats get into the streams, and the readers have to see them.
        duplicates=chance.choice(("1s", "2s", "2m")),
        max_bytes=chance.choice(("8MiB", "12MiB", "16MiB")),
        compress=frozenset(name for name in (*(host.name for host in hosts), *GROUPS) if chance.random() < 0.5),
    )


def plan_round(seed: str, number: int, fleet: Layout, kinds: Collection[str] = KINDS) -> Round:
    """A round of a seed, 1 the first; of actions only those of the given kinds are drawn."""
    chance = random.Random("%s:%d" % (seed, number))
    seconds = round(chance.uniform(*ROUND_SECONDS), 2)
    settle = chance.random() < 0.75
    rewind = chance.choices(("", "save", "restore"), (6, 1, 1))[0]
    drawn = _rotations(chance, fleet, seconds) + _troubles(chance, fleet, seconds)
    # Dropped last, so that what is left out changes nothing about the rest.
    actions = tuple(sorted((a for a in drawn if a.kind in kinds), key=lambda action: action.at))
    return Round(number, seconds, actions, settle, rewind if "rewind" in kinds else "")


def _rotations(chance: random.Random, fleet: Layout, seconds: float) -> list[Action]:
    drawn = []
    for source in fleet.sources:
        for _turn in range(chance.choices((0, 1, 2, 3), (5, 3, 2, 1))[0]):
            (how,) = chance.choices(list(_ROTATIONS), list(_ROTATIONS.values()))
            drawn.append(Action(round(chance.uniform(0, seconds), 2), "rotate", source, 0.0, how))
    return drawn


def _troubles(chance: random.Random, fleet: Layout, seconds: float) -> list[Action]:
    drawn: list[Action] = []
    # What is busy with an action, from when, and until when.
    busy: list[tuple[str, float, float]] = []
    for _turn in range(chance.randint(3, 7)):
        for _attempt in range(_ATTEMPTS):
            (kind,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            action = _draw(chance, fleet, kind, round(chance.uniform(0, seconds), 2))
            begin, end = action.at, action.at + action.seconds + _BREATH
            held = holds(action, fleet)
            if not any(name in held and begin < until and since < end for name, since, until in busy):
                busy += [(name, begin, end) for name in held]
                drawn.append(action)
                break
    return drawn


def holds(action: Action, fleet: Layout) -> list[str]:
    """What cannot be in two actions at a time."""
    if action.kind in ("cut", "stall"):
        return ["connection of %s" % action.target]
    if action.kind == "forget":
        return [SERVER, "durables"]
    if action.kind == "flood":
        return [*fleet.consumers(action.how[0]), "flood"]
    return [action.target]


def _draw(chance: random.Random, fleet: Layout, kind: str, at: float) -> Action:
    if kind == "kill":
        seconds = chance.uniform(0.0, 0.8) if chance.random() < 0.75 else chance.uniform(0.8, 3.0)
        return Action(at, kind, _program(chance, fleet), round(seconds, 2))
    if kind == "stop":
        return Action(at, kind, _program(chance, fleet), round(0.1 + 2.9 * chance.random() ** 2, 2))
    if kind == "restart":
        return Action(at, kind, _program(chance, fleet), round(chance.uniform(0.0, 0.6), 2))
    if kind == "cut":
        refused = 0.0 if chance.random() < 0.6 else chance.uniform(0.1, 1.5)
        return Action(at, kind, chance.choice(fleet.programs), round(refused, 2))
    if kind == "stall":
        how = "%s, then %s" % (chance.choice(("both", "up", "down")), chance.choice(("go on", "cut")))
        return Action(at, kind, chance.choice(fleet.programs), round(chance.uniform(0.2, 3.0), 2), how)
    if kind == "disk":
        disk = "archive-%s" % chance.choice(GROUPS) if chance.random() < 0.7 else chance.choice(fleet.disks)
        left = chance.choice((0, 0, 4096, 20_000, 100_000))
        return Action(at, kind, disk, round(chance.uniform(1.0, 2.0), 2), "%d bytes left" % left)
    if kind == "forget":
        return Action(at, kind, chance.choice(GROUPS), 0.0, "p%d" % chance.randrange(fleet.partitions))
    # More than a stream takes, for as long as one of the groups does not read.
    most = int(fleet.max_bytes[: -len("MiB")])
    how = "%s stopped, %d MiB" % (chance.choice(GROUPS), chance.randint(most, 2 * most))
    return Action(at, kind, chance.choice(fleet.sources), round(chance.uniform(1.5, 2.5), 2), how)


def _program(chance: random.Random, fleet: Layout) -> str:
    kind = chance.random()
    if kind < 0.2:
        return SERVER
    if kind < 0.6:
        return chance.choice(fleet.producers)
    return chance.choice([name for group in GROUPS for name in fleet.consumers(group)])
