# SPDX-License-Identifier: GPL-3.0-or-later
"""Does to a fleet what a round's schedule says, at its times; whatever is broken is whole again at the round's end."""

from __future__ import annotations

import heapq
import itertools
import os
import shutil
import signal
import time
from collections import Counter
from typing import Callable

from tests.support import wait_for

from .schedule import SERVER, Action, Round, holds
from .world import STOP_SECONDS, PromiseBroken, World

COMMIT_SECONDS = 15.0
_POLL_SECONDS = 0.05
_MIB = 1024 * 1024


class Director:
    """Runs rounds. counts says how often what was done; log holds what, with the seconds since the beginning."""

    def __init__(self, world: World) -> None:
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self._world = world
        self._began = time.monotonic()
        self._steps: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._busy: set[str] = set()
        self._servers_up = True
        self._actions: dict[str, Callable[[Action, Callable[[], None]], None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "restart": self._restart,
            "cut": self._cut,
            "stall": self._stall,
            "disk": self._disk,
            "forget": self._forget,
            "flood": self._flood,
            "rotate": self._rotate,
        }

    def say(self, text: str) -> None:
        """Note something with the time."""
        self.log.append("%8.2f s  %s" % (time.monotonic() - self._began, text))

    def run(self, plan: Round) -> None:
        """A round of traffic; returns when all programs run again. Raises PromiseBroken."""
        self.say("round %d" % plan.number)
        begin = time.monotonic()
        for action in plan.actions:
            self._at(begin + action.at, lambda action=action: self._act(action))
        self._at(begin + plan.seconds, lambda: None)
        while self._steps:
            at, _number, step = heapq.heappop(self._steps)
            while (left := at - time.monotonic()) > 0:
                self._world.check()
                time.sleep(min(left, _POLL_SECONDS))
            step()

    def rewind(self, what: str) -> None:
        """Between rounds, while nothing is under way: save a copy of the server's store, or put that copy back."""
        saved = self._world.folder / "store.saved"
        if what == "restore":
            if not saved.exists():
                return
            # What an archive has written and not committed is cut off again, for the stream should have it: bytes that
            # the server loses before that commit are the loss of a server that is excluded from the promise.
            self.await_commit()
        self.say("%s the server's store" % what)
        self._world.server.kill()
        if what == "save":
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(self._world.store, saved)
        else:
            shutil.rmtree(self._world.store)
            shutil.copytree(saved, self._world.store)
            self.counts["rewinds"] += 1
        self._world.server.start()

    def await_commit(self) -> None:
        """Wait until what is archived is committed too. Raises PromiseBroken where that takes too long."""
        try:
            wait_for(self._world.committed, COMMIT_SECONDS)
        except AssertionError:
            raise PromiseBroken("what is archived is not committed after %g s" % COMMIT_SECONDS) from None

    def _at(self, when: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._steps, (when, next(self._numbers), step))

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._at(time.monotonic() + seconds, step)

    def _act(self, action: Action) -> None:
        held = set() if action.kind == "rotate" else set(holds(action, self._world.fleet))
        if held & self._busy:
            # A program that was asked to end took longer than was planned.
            self.say("left out, still busy: %s" % action)
            self.counts["left out"] += 1
            return
        self._busy |= held
        self.say(str(action))

        def done() -> None:
            self._busy -= held

        self._actions[action.kind](action, done)

    def _kind(self, name: str) -> str:
        return "producer" if name in self._world.fleet.producers else "server" if name == SERVER else "consumer"

    def _kill(self, action: Action, done: Callable[[], None]) -> None:
        self.counts["kills of a %s" % self._kind(action.target)] += 1
        if action.target == SERVER:
            self._world.server.kill()
        else:
            self._world.programs[action.target].kill()
        self._later(action.seconds, lambda: self._start(action.target, done))

    def _start(self, name: str, done: Callable[[], None]) -> None:
        self.say("start %s" % name)
        if name == SERVER:
            self._world.server.start()
        else:
            self._world.programs[name].start()
        done()

    def _stop(self, action: Action, done: Callable[[], None]) -> None:
        self.counts["stops of a %s" % self._kind(action.target)] += 1
        self._signal(action.target, signal.SIGSTOP)
        self._later(action.seconds, lambda: self._go_on([action.target], done))

    def _go_on(self, names: list[str], done: Callable[[], None]) -> None:
        for name in names:
            self._signal(name, signal.SIGCONT)
        done()

    def _signal(self, name: str, number: signal.Signals) -> None:
        if name == SERVER:
            os.kill(self._world.server.pid, number)
        else:
            self._world.programs[name].send(number)

    def _restart(self, action: Action, done: Callable[[], None]) -> None:
        self.counts["restarts of a %s" % self._kind(action.target)] += 1
        program = self._world.server if action.target == SERVER else self._world.programs[action.target]
        program.terminate()
        asked = time.monotonic()

        def look() -> None:
            seconds = time.monotonic() - asked
            if program.ended():
                self.say("%s has ended after %.2f s" % (action.target, seconds))
                self._later(action.seconds, lambda: self._start(action.target, done))
            elif seconds > STOP_SECONDS:
                raise PromiseBroken("%s has not ended %g s after SIGTERM" % (action.target, STOP_SECONDS))
            else:
                self._later(_POLL_SECONDS, look)

        look()

    def _cut(self, action: Action, done: Callable[[], None]) -> None:
        self.counts["cuts"] += 1
        line = self._world.programs[action.target].line
        line.refuse(action.seconds > 0)
        line.cut()
        self._later(action.seconds, lambda: (line.refuse(False), done()))  # type: ignore[func-returns-value]

    def _stall(self, action: Action, done: Callable[[], None]) -> None:
        self.counts["stalls"] += 1
        line = self._world.programs[action.target].line
        direction, _then, ending = action.how.partition(", then ")
        line.stall(direction)

        def end() -> None:
            if ending == "cut":
                line.cut()
            line.go_on()
            done()

        self._later(action.seconds, end)

    def _disk(self, action: Action, done: Callable[[], None]) -> None:
        disk = self._world.disks[action.target]
        if not disk.mounted:
            self.counts["disk fills not run"] += 1
            done()
            return
        self.counts[
            "fills of %s" % ("an archive" if action.target.startswith("archive") else "a producer's state")
        ] += 1
        disk.fill(int(action.how.split()[0]))
        self._later(action.seconds, lambda: (disk.empty(), done()))  # type: ignore[func-returns-value]

    def _forget(self, action: Action, done: Callable[[], None]) -> None:
        if self._world.forget(action.target, int(action.how[1:])):
            self.counts["durables deleted"] += 1
        else:
            self.say("there was none to delete")
        done()

    def _flood(self, action: Action, done: Callable[[], None]) -> None:
        """So much that a stream is full, while a group does not read."""
        self.counts["floods"] += 1
        names = [name for name in self._world.fleet.consumers(action.how[0]) if self._world.programs[name].up]
        for name in names:
            self._signal(name, signal.SIGSTOP)
        self._world.writers[action.target].flood(int(action.how.split()[-2]) * _MIB)

        def end() -> None:
            full = self._world.full_streams() if not self._world.core and SERVER not in self._busy else 0
            self.counts["streams filled"] += full
            self.say("%d streams are full" % full)
            self._go_on(names, done)

        self._later(action.seconds, end)

    def _rotate(self, action: Action, done: Callable[[], None]) -> None:
        self._world.writers[action.target].rotate(action.how)
        done()
