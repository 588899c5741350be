# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference in README.md and docs/wire.md names everything that a user may rely on."""

from __future__ import annotations

import functools

import pytest

from shipper_runtime import wire
from shipper_runtime.settings import VARIABLES, Variable
from tests.support import ROOT, run_shipper

README = (ROOT / "README.md").read_text(encoding="utf-8")
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [variable.name for variable in VARIABLES])
def test_the_readme_has_a_row_for_each_setting(name: str) -> None:
    assert any(line.startswith("| `") and "`%s`" % name in line.split("|")[1] for line in README.splitlines())


ALL = {"producer", "consumer", "verify", "streams", "status", "logs", "forget"}
WHO = {"all": ALL, "all but consumer": ALL - {"consumer"}, "both": {"producer", "consumer"}}


@pytest.mark.parametrize("variable", VARIABLES, ids=[variable.name for variable in VARIABLES])
def test_the_readme_says_who_reads_a_setting_and_has_its_flag(variable: Variable) -> None:
    rows = [line.split("|") for line in README.splitlines() if line.startswith("| `")]
    (who,) = (row[2] for row in rows if "`%s`" % variable.name in row[1])
    named = [word.strip(" `") for word in who.split(",")]
    assert set().union(*(WHO.get(word, {word}) for word in named)) == set(variable.commands)
    for command in COMMANDS:
        assert (" %s " % variable.flag in usage(command)) is (command in variable.commands)


@functools.lru_cache
def usage(command: str) -> str:
    return run_shipper(command, "--help").stdout


COMMANDS = ("producer", "consumer", "streams", "partition", "status", "logs", "forget", "verify", "ledger")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_has_a_row_for_each_command(command: str) -> None:
    assert "\n| `shipper %s" % command in README


def test_the_program_has_no_command_that_the_readme_leaves_out() -> None:
    usage = run_shipper("--help").stdout
    commands = {line.split()[0] for line in usage.splitlines() if line.startswith("    ") and line[4] != " "}
    assert commands == set(COMMANDS)


@pytest.mark.parametrize(
    "header", [wire.MSG_ID, wire.SOURCE, wire.LIFE, wire.BEGIN, wire.END, wire.HEAD, wire.PARTIAL, wire.ENCODING]
)
def test_the_wire_format_has_a_row_for_each_header(header: str) -> None:
    assert "\n| `%s` |" % header in WIRE
