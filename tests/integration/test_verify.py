# SPDX-License-Identifier: GPL-3.0-or-later
"""shipper verify and shipper ledger against a real server, beside the services that run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.durable import HOST, STREAM, SUBJECT, DurableFleet
from tests.support import ROOT, UNPRIVILEGED, clean_environment, run_shipper


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[DurableFleet]:
    fleet = DurableFleet(tmp_path)
    yield fleet
    fleet.close()


def verify(fleet: DurableFleet, *arguments: str, **more: str) -> tuple[int, str, str]:
    env = {
        **fleet.common,
        "HOSTNAME": HOST,
        "SHIPPER_FILE": "%s:%s" % (fleet.log, fleet.folder / "*.txt"),
        "SHIPPER_STATE": str(fleet.folder / "state"),
        **more,
    }
    done = run_shipper("verify", "--wait", "2", *arguments, env=env)
    return done.returncode, done.stdout, done.stderr


def test_what_was_written_has_arrived_or_the_file_is_named_that_lacks_bytes(fleet: DurableFleet) -> None:
    """Also where the stream takes nothing any more, and with a producer that does not run."""
    fleet.write(10)
    code, out, err = verify(fleet)
    assert (code, out) == (1, "")
    assert "does not ship to %s: after 2s the producer has begun none of 1 files" % SUBJECT in err

    producer = fleet.producer().start()
    code, out, err = verify(fleet, "--wait", "20")
    assert (code, err) == (0, "")
    assert out == "%s ships 1 file to %s: all of it has arrived\n" % (HOST, SUBJECT)
    # A file that this producer does not ship, and the beginning of a line, fail nothing.
    (fleet.folder / "other.txt").write_text("x\n")
    with fleet.log.open("ab") as file:
        file.write(b"half a line")
    code, out, err = verify(fleet, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["not_begun"] == [str(fleet.folder / "other.txt")]
    assert (report["files"], report["behind_bytes"], report["last_sequence"]) == (2, 0, 1)

    producer.stop()
    fleet.write(10)
    code, out, err = verify(fleet)
    assert (code, out) == (1, "")
    assert "%s lacks " % fleet.log in err and "see the producer's log" in err


def test_what_may_not_be_read_is_not_said_to_have_arrived(fleet: DurableFleet) -> None:
    """But where the producer could read it: what it holds more cannot be told here."""
    fleet.write(10)
    fleet.log.chmod(0)
    env = {
        **clean_environment(),
        **fleet.common,
        "HOSTNAME": HOST,
        "SHIPPER_FILE": str(fleet.log),
        "SHIPPER_STATE": str(fleet.folder / "state"),
    }
    command = [*UNPRIVILEGED, sys.executable, "-m", "shipper_runtime", "verify", "--wait", "1"]

    def verified() -> tuple[int, str]:
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    code, said = verified()
    assert code == 1 and "the producer has begun none of 1 files" in said
    fleet.log.chmod(0o600)
    with fleet.producer():
        assert verify(fleet, "--wait", "20")[0] == 0
        fleet.log.chmod(0)
        assert verified() == (0, "%s ships 1 file to %s: all of it has arrived\n" % (HOST, SUBJECT))


def test_settings_that_do_not_work_are_one_sentence(fleet: DurableFleet) -> None:
    fleet.write(1)
    code, _out, err = verify(fleet, NATS_URL="nats://127.0.0.1:9")
    assert code == 2 and "127.0.0.1:9" in err and err.count("\n") == 1
    code, _out, err = verify(fleet, SHIPPER_STREAM="other")
    assert code == 2 and "stream other-p0 does not answer" in err


def test_a_large_backlog_that_moves_is_no_fault(fleet: DurableFleet) -> None:
    """It need not have arrived: who deploys would wait for hours."""
    from shipper_runtime.identity import Record
    from shipper_runtime.verify import Found, compare

    record = Record(b"/a", b"/a", 1, 2, 0, offset=10)
    report = compare({(1, 2): Found(b"/a", 30), (1, 3): Found(b"/b", 5)}, [record])
    assert (report.behind, report.unknown, report.nothing_begun) == ({b"/a": 20}, [b"/b"], False)
    assert compare({}, []).nothing_begun is False


def ledger(fleet: DurableFleet, *arguments: str) -> Any:
    done = run_shipper("ledger", *arguments, env={"SHIPPER_DIRECTORY": str(fleet.directory())})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_archive_remembers_its_hosts_and_what_never_came(fleet: DurableFleet) -> None:
    assert "has no ledger" in ledger(fleet)
    assert json.loads(ledger(fleet, "--json"))["there"] is False
    written = fleet.write(10)
    fleet.producer().start()
    fleet.consumer().start()
    fleet.expect(written)
    fleet.settle()
    # Messages that are removed before they are read are a hole.
    fleet.programs[1].stop()
    fleet.publish(b"one", b"two")
    after = fleet.state()["last_seq"] + 1
    fleet.ask(lambda js: js.purge(STREAM, after))
    fleet.publish(b"three")
    fleet.programs[1].start()
    fleet.programs[1].wait_for_log("Missing messages")
    fleet.settle()
    known = json.loads(ledger(fleet, "--json"))
    assert [(seen["host"], seen["stream"]) for seen in known["hosts"]] == [(HOST, "logs-p0")]
    assert 0 <= known["hosts"][0]["last_seen_seconds"] < 60
    assert [(hole["host"], hole["first"], hole["last"]) for hole in known["holes"]] == [("", 2, 4)]
    text = ledger(fleet)
    assert "2 to 3   messages  logs-p0" in text
