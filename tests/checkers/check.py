# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the project's checks on every Python and ansible-core that this machine has, and says what it could not run.

    python3 tests/checkers/check.py             all of them
    python3 tests/checkers/check.py lint unit   those of some groups: lint, docs, unit, integration, torture,
                                                collection, ansible-test, molecule

Six lanes run beside each other: what is about Python, about the newest one, about Ansible, about brokers and about
fleets on the newest ansible-core, and about real hosts, which only root can start. A check's output is kept below
.cache/reports and shown when it failed; nothing is written outside .venv, .venvs and .cache. The last line is
"N passed, N failed", tests and linters added up; the exit code is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from environments import (
    CORE_2_17,
    CORE_2_21,
    MAIN,
    OLDEST,
    ROOT,
    Environment,
    EnvironmentProblem,
    find_pythons,
    prepare,
    python_folders,
)

CACHE = ROOT / ".cache"
HOME = CACHE / "home"
REPORTS = CACHE / "reports"
COLLECTIONS = CACHE / "collections"
COLLECTION = COLLECTIONS / "ansible_collections" / "logfleet" / "shipper"
LIMIT_SECONDS = 2700
GROUPS = ("lint", "docs", "unit", "integration", "torture", "collection", "ansible-test", "molecule")
# Stands in a command for the version of the environment's Python, such as 3.10.
PYTHON_VERSION = "PYTHON_VERSION"

_REASONS = ("FAILED", "ERROR", "FATAL", "E  ", "fatal:")
_REASONS_MOST = 30

# The releases of pip that ansible-test 2.17, 2.18 and 2.19, 2.20 and 2.21 ask for.
_ANSIBLE_TEST_PIPS = ("23.1.2", "24.2", "25.2")


# What takes minutes runs once. What is about nats-server runs on the newest Python, what is about recovery on the
# oldest; what is about a fleet on the newest ansible-core, what is about one host on the oldest, and the scenarios of
# Molecule, which have both, on a third.
_ABOUT_RECOVERY = ("tests/integration/test_durable.py",)
_ABOUT_SERVERS = (
    "tests/integration/test_permissions.py",
    "tests/integration/test_cluster.py",
    "tests/integration/test_streams.py",
    "tests/integration/test_status.py",
)
_ABOUT_BROKERS = ("tests/collection/test_broker.py",)
_ABOUT_FLEETS = (
    "tests/collection/test_fleet.py",
    "tests/collection/test_rollout.py",
    "tests/collection/test_modules.py",
)
_ABOUT_HOSTS = ("tests/collection/test_site.py", "tests/collection/test_layout.py")


@dataclass(frozen=True)
class Check:
    """One command in one environment, which may leave junit reports: their tests are counted one by one."""

    group: str
    name: str
    environment: Environment
    command: tuple[str, ...]
    folder: Path = ROOT

    @property
    def title(self) -> str:
        return "%s, %s" % (self.name, self.environment.folder)

    @property
    def lane(self) -> str:
        """Ansible's tools work in one copy of the collection, one after the other; the hosts only read there."""
        if self.group == "molecule":
            return "hosts"
        if self.folder == COLLECTION or (self.group == "collection" and self.environment != CORE_2_21):
            return "Ansible"
        if self.group == "collection":
            # They need no such copy, take longest, and mostly wait.
            return "fleets" if self.name == "fleets" else "brokers"
        return "newest Python" if self.environment == CORE_2_21 else "Python"

    @property
    def log(self) -> Path:
        return REPORTS / ("%s.log" % self.title.replace(" ", "-").replace("/", "-"))

    @property
    def takes_report(self) -> bool:
        """Whether the command is told where to put its report."""
        return self.command[0] == "pytest" or self.group == "molecule"

    @property
    def reports(self) -> list[Path]:
        if self.takes_report:
            return [self.log.with_suffix(".xml")]
        return (
            sorted(COLLECTION.glob("tests/output/junit/*.xml")) if self.command[:2] == ("ansible-test", "units") else []
        )


@dataclass
class Outcome:
    """How a check went: tests passed, failed and skipped (with the reasons), a linter being one test. cpu is of all
    processes that it started and waited for, in seconds."""

    check: Check
    seconds: float
    cpu: float
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = "%d passed, %d failed" % (self.passed, self.failed) if self.check.reports else ""
        word = "FAILED" if self.failed else "ok"
        took = "%6.1f s, CPU %6.1f s" % (self.seconds, self.cpu)
        return ("%-6s %s  %-42s %s" % (word, took, self.check.title, count)).rstrip()


def plan() -> list[Check]:
    """All checks, the quick ones first. The main environment's ansible-core is between those of the other two."""
    checks = [
        Check("lint", "ruff", MAIN, ("ruff", "check", ".")),
        Check("lint", "mypy --strict", MAIN, ("mypy",)),
        Check("lint", "antsibull-changelog", MAIN, ("antsibull-changelog", "lint"), COLLECTION),
        Check(
            "lint",
            "antsibull-docs",
            MAIN,
            (
                *("antsibull-docs", "lint-collection-docs", "--plugin-docs"),
                *("--validate-collection-refs=all", "--skip-rstcheck", "."),
            ),
            COLLECTION,
        ),
        Check(
            "lint",
            "ansible-lint",
            MAIN,
            ("ansible-lint", "--offline", "--profile", "production", "--strict", "--exclude", "tests/output"),
            COLLECTION,
        ),
    ]
    readmes, docsite = "tests/checkers/role_readmes.py", "tests/checkers/docsite.py"
    checks.append(Check("docs", "README.md of the roles", MAIN, ("python", readmes, "--check")))
    checks.append(Check("docs", "docsite", MAIN, ("python", docsite, str(CACHE / "html"))))
    checks.append(Check("docs", "guide, dashboard, alerts", MAIN, ("pytest", "tests/docs")))
    for environment in (MAIN, OLDEST, CORE_2_21):
        checks.append(Check("unit", "runtime", environment, ("pytest", "tests/runtime")))
        elsewhere = {OLDEST: _ABOUT_SERVERS, CORE_2_21: _ABOUT_RECOVERY}.get(environment, ())
        left = _left_out(elsewhere)
        checks.append(Check("integration", "integration", environment, ("pytest", "tests/integration", *left)))
    checks.append(Check("torture", "torture", MAIN, ("pytest", "tests/torture")))
    for environment in (CORE_2_17, CORE_2_21):
        left = _left_out((*_ABOUT_FLEETS, *(() if environment == CORE_2_17 else _ABOUT_HOSTS), *_ABOUT_BROKERS))
        checks.append(Check("collection", "collection", environment, ("pytest", "tests/collection", *left)))
        if environment == CORE_2_21:
            checks.append(Check("collection", "brokers", environment, ("pytest", *_ABOUT_BROKERS)))
            checks.append(Check("collection", "fleets", environment, ("pytest", *_ABOUT_FLEETS)))
        units = ("ansible-test", "units", "--venv", "--python", PYTHON_VERSION, "--color", "no")
        # pylint says the same of the code on both, and takes a third of the time.
        once = ("--skip-test", "pylint") if environment == CORE_2_17 else ()
        sanity = ("ansible-test", "sanity", "--venv", "--color", "no", *once)
        checks.append(Check("ansible-test", "ansible-test units", environment, units, COLLECTION))
        checks.append(Check("ansible-test", "ansible-test sanity", environment, sanity, COLLECTION))
    checks.append(Check("molecule", "molecule", MAIN, ("python", "molecule/lab/scenarios.py"), COLLECTION))
    return checks


def _left_out(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("--ignore=" + name for name in names)


def copy_tree(target: Path) -> None:
    """A copy of the tree without what .gitignore names; what was at its place goes."""
    patterns = [".git", *(line for line in (ROOT / ".gitignore").read_text().split() if not line.startswith("#"))]

    def ignored(folder: str, names: list[str]) -> list[str]:
        place = Path(folder).relative_to(ROOT).as_posix()
        return [name for name in names if any(_matches(pattern, place, name) for pattern in patterns)]

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT, target, symlinks=True, ignore=ignored)


def copy_collection() -> None:
    """Puts a copy of the tree where Ansible's tools look for a collection."""
    # ansible-test keeps its own environments in tests/output: they are kept, or every run would be a cold one.
    output, kept = COLLECTION / "tests" / "output", CACHE / "ansible-test-output"
    if output.is_dir():
        output.rename(kept)
    copy_tree(COLLECTION)
    if kept.is_dir():
        kept.rename(output)
    # ansible-test and ansible-lint ask git for the files; in the project's own repository the copy is ignored.
    subprocess.run(["git", "init", "--quiet", "--template=", str(COLLECTION)], check=True)


def _matches(pattern: str, place: str, name: str) -> bool:
    pattern = pattern.rstrip("/")
    if "/" not in pattern:
        return fnmatch.fnmatch(name, pattern)
    return fnmatch.fnmatch(name if place == "." else "%s/%s" % (place, name), pattern.lstrip("/"))


def prepare_home(environment: Path) -> None:
    """A home below the project for tools that write into one.

    ansible-test strips pip's variables from its environment and would fetch get-pip from a place that not everybody
    reaches: pip's settings are written into this home, and a stand-in for get-pip lies where ansible-test caches it.
    """
    pips = HOME / ".ansible" / "test" / "cache"
    pips.mkdir(parents=True, exist_ok=True)
    for version in _ANSIBLE_TEST_PIPS:
        stub = pips / ("get_pip_%s.py" % version.replace(".", "_"))
        shutil.copyfile(ROOT / "tests" / "checkers" / "get_pip_stub.py", stub)
    listing = subprocess.run(
        [str(environment / "bin" / "pip"), "config", "list"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        name, value = line.split("=", 1)
        section, option = name.rsplit(".", 1)
        if section in ("global", ":env:"):
            settings[option] = value[1:-1].replace("\\n", "\n    ")
    target = HOME / ".config" / "pip" / "pip.conf"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    target.write_text("[global]\n" + "".join("%s = %s\n" % item for item in settings.items()))


def variables(environment: Path) -> dict[str, str]:
    """The variables of a check: the environment's programs first, all Pythons, nothing of the developer's Ansible."""
    dropped = ("ANSIBLE_", "PYTHON", "VIRTUAL_ENV", "PYTEST_", "SHIPPER_", "NATS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    folders = [environment / "bin", *python_folders()]
    kept.update(
        PATH=os.pathsep.join(str(folder) for folder in folders),
        HOME=str(HOME),
        LC_ALL="C.UTF-8",
        NO_COLOR="1",
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
    )
    return kept


class Runner:
    """Runs lanes of checks beside each other, and ends what runs when it is interrupted."""

    def __init__(self, checks: list[Check], folders: dict[str, Path]) -> None:
        self.outcomes: list[Outcome] = []
        self._checks = checks
        self._folders = folders
        self._printing = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._interrupted = False

    def run(self) -> None:
        """Run them all; the outcomes are in the checks' order."""
        names = dict.fromkeys(check.lane for check in self._checks)
        lanes = [[check for check in self._checks if check.lane == name] for name in names]
        threads = [threading.Thread(target=self._run_lane, args=[lane]) for lane in lanes]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._interrupted = True
            for process in list(self._running):
                _end_group(process)
            raise
        self.outcomes.sort(key=lambda outcome: self._checks.index(outcome.check))

    def _run_lane(self, checks: list[Check]) -> None:
        for check in checks:
            if self._interrupted:
                return
            outcome = self._run_one(check)
            self.outcomes.append(outcome)
            if not self._interrupted:
                self._show(outcome)

    def _run_one(self, check: Check) -> Outcome:
        environment = self._folders[check.environment.folder]
        (version,) = [folder.name[len("python") :] for folder in (environment / "lib").glob("python3.*")]
        command = [version if part == PYTHON_VERSION else part for part in check.command]
        command[0] = str(environment / "bin" / command[0])
        for report in check.reports:
            report.unlink(missing_ok=True)
        if check.command[0] == "pytest":
            command += ["--quiet"]
        if check.takes_report:
            command += ["--junitxml", str(check.reports[0])]
        started = time.monotonic()
        with check.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=check.folder,
                env=variables(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
            code, cpu = _wait(process)
            if code is None:
                log.write(b"not done after %d seconds: ended\n" % LIMIT_SECONDS)
                _end_group(process)
                code = 1
            self._running.discard(process)
        outcome = Outcome(check, time.monotonic() - started, cpu)
        for report in check.reports:
            if report.exists():
                _count(report, outcome)
        if code != 0 and outcome.failed == 0:
            outcome.failed = 1
        elif code == 0 and not check.reports:
            outcome.passed = 1
        return outcome

    def _show(self, outcome: Outcome) -> None:
        with self._printing:
            if outcome.failed:
                print("\n== %s" % outcome.check.title)
                print(outcome.check.log.read_text(errors="replace"))
            print(outcome, flush=True)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int | None, float]:
    """The exit code, or None where it takes too long, and the CPU seconds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if process.returncode is not None:
            return process.returncode, 0.0  # it was ended, and waited for
        with contextlib.suppress(ChildProcessError):
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage.ru_utime + usage.ru_stime
        time.sleep(0.2)
    return None, 0.0


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


def _count(report: Path, outcome: Outcome) -> None:
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif skipped is not None:
            outcome.skipped.append("%s: %s" % (case.get("name"), skipped.get("message")))
        else:
            outcome.passed += 1


def summarize(outcomes: list[Outcome], missing: dict[str, str]) -> int:
    """Prints what ran, what did not and why, and the count; the exit code."""
    print("\n== What ran")
    for outcome in outcomes:
        print(outcome)
    skipped = ["%s: %s" % (outcome.check.title, reason) for outcome in outcomes for reason in outcome.skipped]
    print("== What could not run" if missing or skipped else "== Nothing was left out")
    for title, reason in missing.items():
        print("%s: %s" % (title, reason))
    for line in skipped:
        print(line)
    bad = [outcome for outcome in outcomes if outcome.failed]
    if bad:
        # Where a reader sees no more than the end, this says why.
        print("== What failed")
    for outcome in bad:
        print(outcome.check.title)
        print("".join("    %s\n" % line for line in _reasons(outcome.check.log)), end="")
    failed = sum(outcome.failed for outcome in outcomes)
    print("%d passed, %d failed" % (sum(outcome.passed for outcome in outcomes), failed))
    return 1 if failed else 0


def _reasons(log: Path) -> list[str]:
    """The lines of a log that say what went wrong, as pytest, ansible-test and Ansible begin them, or else its last."""
    lines = [line[:300] for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if line.startswith(_REASONS)][:_REASONS_MOST] or lines[-_REASONS_MOST:]


def _interrupt(*_signal: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Runs the project's checks.")
    parser.add_argument("groups", metavar="GROUP", nargs="*", help="which: %s; all without" % ", ".join(GROUPS))
    parser.add_argument("--main-only", action="store_true", help="only in the main environment")
    options = parser.parse_args(arguments)
    for group in options.groups:
        if group not in GROUPS:
            parser.error("no group %r: there are %s" % (group, ", ".join(GROUPS)))
    checks = [check for check in plan() if not options.groups or check.group in options.groups]
    if options.main_only:
        checks = [check for check in checks if check.environment == MAIN]
    pythons = find_pythons()
    folders: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for environment in dict.fromkeys([MAIN, *(check.environment for check in checks)]):
        try:
            folders[environment.folder] = prepare(environment, pythons)
        except EnvironmentProblem as problem:
            if environment == MAIN:
                print(problem, file=sys.stderr)
                return 1
            missing[environment.purpose] = str(problem)
    checks = [check for check in checks if check.environment.folder in folders]
    if os.geteuid() != 0 and any(check.group == "molecule" for check in checks):
        missing["the Molecule scenarios"] = "only root can start hosts that run systemd: run this as root"
        checks = [check for check in checks if check.group != "molecule"]
    if not options.main_only and {OLDEST.folder, CORE_2_21.folder} <= folders.keys():
        # They take minutes: the oldest and the newest Python will do, and stand for those between.
        twice = ("unit", "integration")
        checks = [check for check in checks if check.group not in twice or check.environment != MAIN]
    REPORTS.mkdir(parents=True, exist_ok=True)
    copy_collection()
    prepare_home(folders[MAIN.folder])
    runner = Runner(checks, folders)
    runner.run()
    return summarize(runner.outcomes, missing)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
