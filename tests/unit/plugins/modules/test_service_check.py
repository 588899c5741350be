# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.logfleet.shipper.plugins.modules.service_check import (
    Sample,
    of_supervisor,
    of_systemd,
    watch,
)

SHOWN = """MainPID=%d
NRestarts=%d
StatusText=%s
Result=%s
LoadState=loaded
ActiveState=%s
SubState=%s
"""


def shown(pid=7, restarts=0, status="publishing to s.p0.web1", result="success", active="active", sub="running"):
    return of_systemd(SHOWN % (pid, restarts, status, result, active, sub))


def test_a_service_of_systemd_that_runs_and_is_connected():
    sample = shown(restarts=2)
    assert (sample.pid, sample.status, sample.broken, sample.waiting) == (7, "publishing to s.p0.web1", "", "")
    assert sample.restarts == 2


def test_one_that_is_not_connected_yet_says_so():
    assert shown(status="connecting").waiting == "connecting"
    assert shown(status="waiting for stream logs-p0").waiting == "waiting for stream logs-p0"
    # One of an older version says nothing of the kind.
    assert shown(status="").status == "active (running)"
    assert shown(active="activating", sub="start").pid == 0


def test_one_that_failed_or_is_between_two_attempts_is_broken():
    assert shown(active="activating", sub="auto-restart", result="exit-code").broken == (
        "it is activating (auto-restart), with the result exit-code"
    )
    assert shown(active="failed", sub="failed", result="exit-code").broken
    assert shown(active="inactive", sub="dead").broken
    assert of_systemd("LoadState=not-found\nActiveState=inactive\n").broken == "systemd does not know it"


def test_a_service_of_supervisor():
    assert of_supervisor("shipper-producer    RUNNING   pid 42, uptime 0:00:05\n").pid == 42
    assert (of_supervisor("shipper-producer   STARTING   \n").pid, of_supervisor("x STARTING \n").broken) == (0, "")
    for state in ("BACKOFF   Exited too quickly", "FATAL     Exited too quickly", "EXITED    Nov 25 02:00 AM"):
        assert "supervisor says: shipper-producer" in of_supervisor("shipper-producer   %s" % state).broken
    assert of_supervisor("unix:///x.sock no such file").broken


def look_at(*samples):
    left = list(samples)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_one_that_stays_the_same_process_works():
    asked = []
    last, result, problem = watch(look_at(Sample(7, "fine")), 1, 0, lambda: asked.append(1) or "verified")
    assert (last.pid, result, problem, asked) == (7, "verified", "", [1])


def test_one_that_is_another_process_later_or_was_started_again_does_not():
    fine, other = Sample(7, "fine"), Sample(8, "fine")
    assert watch(look_at(fine, other), 1, 0, lambda: None)[2] == "it does not stay: process 7 became 8"
    again = Sample(7, "fine", restarts=1)
    assert watch(look_at(fine, again), 1, 0, lambda: None)[2] == "it does not stay: process 7 became 7"
    broken = Sample(0, "", "it is failed")
    assert watch(look_at(fine, broken), 1, 0, lambda: None)[2] == "it is failed"


def test_one_that_is_not_connected_in_time_is_told_and_nothing_is_asked_of_it():
    waiting = Sample(7, "connecting", waiting="connecting")
    assert watch(look_at(waiting), 0, 0, lambda: 1 / 0)[1:] == (None, "after 0 seconds it is still connecting")
    assert watch(look_at(waiting, Sample(7, "fine")), 5, 0, lambda: 1)[1:] == (1, "")
