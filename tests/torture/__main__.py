# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills, stops, cuts off and fills up a fleet in every way that durable mode must bear, and counts bytes.

    make torture SEED=7 ROUNDS=200          or    python -m tests.torture --seed 7 --rounds 200

The same seed draws the same fleet and the same actions at the same times; how processes meet them cannot be replayed.
Exit codes: 0 all bytes are there, once, in order; 1 they are not, or a program broke another promise; 2 the arguments
cannot work; 3 the torture itself failed. Needs root to fill disks; without, that is left out, and said.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .actions import Director
from .disk import own_mounts
from .sabotage import SABOTAGES
from .schedule import GROUPS, KINDS, Layout, Round, layout, plan_round
from .settle import QUIET_SECONDS, SETTLE_SECONDS, WRONG, Judge
from .world import PromiseBroken, World

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TAIL_LINES = 25
# What the interpreter says of objects that it meets at its end is counted, and is no fault in what a program does.
_IGNORED = re.compile(r"^Exception ignored in", re.MULTILINE)
_TRACEBACK = re.compile(r"^(?!Exception ignored in)[^\n]*\nTraceback", re.MULTILINE)
# What core NATS bears too.
_CORE_KINDS = ("stop", "rotate")


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    seed = options.seed or str(random.SystemRandom().randrange(1_000_000))
    print("torture: SEED=%s ROUNDS=%d" % (seed, options.rounds), flush=True)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    problem = own_mounts()
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=options.folder))
    fleet = layout(seed)
    world = World(folder, seed, fleet, core=options.core, no_disks=problem, sabotage=options.sabotage)
    kinds = options.only or (_CORE_KINDS if options.core else KINDS)
    code = 3
    try:
        code = _run(world, seed, kinds, options)
    finally:
        kept = options.keep or code in (1, 3)
        world.end(kept)
        if kept:
            print("everything is kept in %s" % folder)
        else:
            shutil.rmtree(folder)
    return code


def _interrupt(*_signal: object) -> None:
    # Once: what is mounted and started has to be undone in peace.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", help="what everything is drawn from; at random when there is none")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", metavar="KINDS", type=_kinds, help="of %s, separated by commas" % ", ".join(KINDS))
    parser.add_argument("--core", action="store_true", help="core NATS instead of durable mode: bears little")
    parser.add_argument("--sabotage", choices=SABOTAGES, default="", help="take a safeguard out of the consumers")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, help="seconds that missing bytes may take")
    parser.add_argument("--quiet", type=float, default=QUIET_SECONDS, help="seconds that wrong bytes may stay")
    parser.add_argument("--folder", default="/tmp", help="where everything is kept, /tmp if not said")
    parser.add_argument("--keep", action="store_true", help="keep it also when all went well")
    return parser.parse_args(arguments)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError("there is no %s" % unknown[0])
    return kinds


def _run(world: World, seed: str, kinds: Sequence[str], options: argparse.Namespace) -> int:
    director = Director(world)
    judge = Judge(world, options.settle, options.quiet)
    rounds = 0
    try:
        world.begin()
        _print_fleet(world.fleet)
        if world.no_disks:
            print("disks are not filled: %s" % world.no_disks)
        # Files that were rotated before a producer's very first look are not the named file's.
        judge.settle()
        for rounds in range(1, options.rounds + 1):
            _round(world, director, judge, plan_round(seed, rounds, world.fleet, kinds), rounds == options.rounds)
        judge.settle(thorough=True)
        if not world.core:
            director.await_commit()
        complaints = [name for name, program in world.programs.items() if _TRACEBACK.search(program.log)]
        if complaints:
            raise PromiseBroken("a traceback in the log of %s" % ", ".join(complaints))
        return 0
    except PromiseBroken as broken:
        print("FAILED in round %d of seed %s: %s" % (rounds, seed, broken))
        _print_what_happened(world, director)
        return 1
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    except Exception:
        traceback.print_exc()
        print("the torture itself failed in round %d of seed %s" % (rounds, seed))
        return 3
    finally:
        _print_totals(world, director, judge, rounds)


def _round(world: World, director: Director, judge: Judge, plan: Round, last: bool) -> None:
    before, began = world.written, time.monotonic()
    if plan.rewind and not world.writing:
        director.rewind(plan.rewind)
    world.make_room()
    world.go()
    director.run(plan)
    text = "round %d: %d actions" % (plan.number, len(plan.actions))
    if plan.settle or last:
        world.hold()
        text += ", all archived after %.1f s" % judge.settle()
        director.say("all is archived")
        world.clean_up()
    print("%s, %.1f MB written, %.1f s" % (text, (world.written - before) / 1e6, time.monotonic() - began), flush=True)


def _print_fleet(fleet: Layout) -> None:
    hosts = ", ".join("%s (%s)" % (host.name, "a glob" if host.glob else ", ".join(host.files)) for host in fleet.hosts)
    workers = ", ".join(
        "%s of %s" % (name, "/".join(map(str, numbers)))
        for group in GROUPS
        for name, numbers in zip(fleet.consumers(group), fleet.workers[group])
    )
    print("%d partitions of %s, duplicates %s" % (fleet.partitions, fleet.max_bytes, fleet.duplicates))
    print("hosts %s; workers %s; periods of %s" % (hosts, workers, fleet.rotate))


def _print_what_happened(world: World, director: Director) -> None:
    settled = [number for number, line in enumerate(director.log) if line.endswith("all is archived")]
    print("\n== What was done since all was archived last")
    print("\n".join(director.log[settled[-1] if settled else 0 :]))
    for name, log in world.logs.items():
        if log.exists():
            print("\n== %s, last lines of %s" % (name, log))
            print("\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]))
    (world.folder / "actions.log").write_text("\n".join(director.log) + "\n")


def _print_totals(world: World, director: Director, judge: Judge, rounds: int) -> None:
    rotations: Counter[str] = Counter()
    for writer in world.writers.values():
        rotations.update(writer.rotations)
    ignored = sum(len(_IGNORED.findall(program.log)) for program in world.programs.values())
    counts = [
        *sorted(director.counts.items()),
        ("warnings of interpreters at their end", ignored),
    ]
    print("\n== Totals")
    print("rounds: %d" % rounds)
    for name, count in counts:
        print("%s: %d" % (name, count))
    print("rotations: %s" % ", ".join("%d %s" % (count, how) for how, count in sorted(rotations.items())))
    print("bytes written: %d, to each of %d archives" % (world.written, len(GROUPS)))
    print(", ".join("bytes %s: %d" % (what, judge.wrong[what]) for what in WRONG))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
