# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference in README.md and docs/wire.md names everything that a user may rely on."""

from __future__ import annotations

import pytest

from shipper_runtime import wire
from shipper_runtime.settings import VARIABLES
from tests.support import ROOT, run_shipper

README = (ROOT / "README.md").read_text(encoding="utf-8")
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [variable.name for variable in VARIABLES])
def test_the_readme_has_a_row_for_each_setting(name: str) -> None:
    assert any(line.startswith("| `") and "`%s`" % name in line.split("|")[1] for line in README.splitlines())


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
