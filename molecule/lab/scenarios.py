# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the Molecule scenarios in one lab, some beside each other, and says at the end why one failed.

    python molecule/lab/scenarios.py [--workers N] [--junitxml FILE] [SCENARIO...]

With the Python of an environment that has Molecule and ansible-core. It enters the lab by itself. The collection is
looked up in ANSIBLE_COLLECTIONS_PATH. Exits with 0 if all passed, with 3 if there can be no lab here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

LAB = Path(__file__).resolve().parent
PROJECT = LAB.parents[1]
RUN = Path("/run/shipper-lab")
# The longest first, and beside it the others.
SCENARIOS = ("failure", "default", "upgrade", "cluster")
LIMIT_SECONDS = 900
_SHOWN = 40
_JOURNAL = ("journalctl", "--no-hostname", "--output=short-precise", "--unit=shipper-*", "--lines=15")


@dataclass(frozen=True)
class Outcome:
    """How a scenario went; output is all that it said, reason empty where it passed."""

    scenario: str
    seconds: float
    output: str
    reason: str

    def __str__(self) -> str:
        return "%-6s %6.1f s  %s" % ("FAILED" if self.reason else "ok", self.seconds, self.scenario)


def run(scenario: str) -> Outcome:
    """One scenario, in a folder of its own; its hosts are removed."""
    started = time.monotonic()
    folder = RUN / "molecule" / scenario
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(folder),
        # Where there is no terminal, there are no boxes around what is said.
        "MOLECULE_COMMAND_BORDERS": "false",
    }
    command = ["molecule", "test", "--scenario-name", scenario, "--destroy", "never"]
    log = folder / "log"
    with log.open("wb") as file:
        try:
            code = subprocess.run(
                command,
                cwd=PROJECT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            file.write(b"not done after %d seconds: ended\n" % LIMIT_SECONDS)
            code = 1
    output = log.read_text(errors="replace")
    reason = why(output) if code != 0 else left_out(output)
    names = hosts(scenario)
    if reason:
        output += "".join(journal(name) for name in names)
    if names:
        subprocess.run(["podman", "rm", "--force", "--time", "0", *names], stdout=subprocess.DEVNULL, check=False)
    return Outcome(scenario, time.monotonic() - started, output, reason)


def hosts(scenario: str) -> list[str]:
    """The names of a scenario's hosts that are there."""
    command = ["podman", "ps", "--all", "--format", "{{.Names}}"]
    names = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    return [name for name in names if name.endswith(".%s.test" % scenario)]


def journal(host: str) -> str:
    """What the services of a host said last."""
    command = ["podman", "exec", host, *_JOURNAL]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return "\n-- journal of %s\n%s" % (host, done.stdout.decode(errors="replace"))


def why(output: str) -> str:
    """The task that failed and what it said, or the last lines, of what a scenario said."""
    lines = [line.rstrip() for line in output.splitlines()]
    failed = [number for number, line in enumerate(lines) if line.startswith(("fatal: ", "failed: ", "ERROR"))]
    if not failed:
        return "\n".join(lines[-_SHOWN:])
    task = max((number for number in range(failed[0]) if lines[number].startswith("TASK [")), default=failed[0])
    end = next(
        (number for number in range(failed[0], len(lines)) if lines[number].startswith("PLAY RECAP")), len(lines)
    )
    found = [lines[task], *lines[failed[0] : end]]
    return "\n".join([*found[: 2 * _SHOWN], *([] if len(found) <= 2 * _SHOWN else ["..."])])


def left_out(output: str) -> str:
    """What Molecule did not do and did not fail for."""
    return "\n".join(line for line in output.splitlines() if "Missing playbook" in line and "dependency" not in line)


def write_report(path: Path, outcomes: list[Outcome]) -> None:
    """JUnit's XML, for whoever counts."""
    suite = ElementTree.Element("testsuite", name="molecule")
    for outcome in outcomes:
        case = ElementTree.SubElement(suite, "testcase", name=outcome.scenario, time="%.1f" % outcome.seconds)
        if outcome.reason:
            ElementTree.SubElement(case, "failure", message=outcome.reason.splitlines()[0])
    ElementTree.ElementTree(suite).write(path, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Runs what is asked for; the exit code."""
    parser = argparse.ArgumentParser(description="Runs Molecule scenarios in the lab.")
    parser.add_argument(
        "scenarios",
        metavar="SCENARIO",
        nargs="*",
        help="of %s; without, what the variable SCENARIO names, or all" % ", ".join(SCENARIOS),
    )
    parser.add_argument("--workers", type=int, default=2, help="how many run beside each other (default: 2)")
    parser.add_argument("--junitxml", metavar="FILE", type=Path, help="write a report")
    options = parser.parse_args(arguments)
    options.scenarios = options.scenarios or os.environ.get("SCENARIO", "").split()
    for scenario in options.scenarios:
        if scenario not in SCENARIOS:
            parser.error("no scenario %r: there are %s" % (scenario, ", ".join(SCENARIOS)))
    if "SHIPPER_LAB_TAG" not in os.environ:
        lab = [sys.executable, str(LAB / "lab.py"), "run", sys.executable, str(Path(__file__).resolve()), *arguments]
        os.execv(sys.executable, lab)
    chosen = [scenario for scenario in SCENARIOS if scenario in (options.scenarios or SCENARIOS)]
    outcomes = []
    with ThreadPoolExecutor(options.workers) as pool:
        for outcome in pool.map(run, chosen):
            outcomes.append(outcome)
            if outcome.reason:
                print("\n== %s\n%s" % (outcome.scenario, outcome.output))
            print(outcome, flush=True)
    if options.junitxml:
        write_report(options.junitxml, outcomes)
    for outcome in outcomes:
        if outcome.reason:
            print("\n== %s failed:\n%s" % (outcome.scenario, outcome.reason))
    return 1 if any(outcome.reason for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
