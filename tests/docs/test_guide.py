# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's guide is complete: each line that may be logged at 3 a.m. has an entry, and each entry is a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.docs.log_lines import log_lines, shown
from tests.support import ROOT, run_shipper

GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
LINES = log_lines(ROOT / "shipper_runtime")


def rows() -> list[list[str]]:
    section = GUIDE.partition("\n## What each log line means\n")[2]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def entry(row: list[str]) -> str:
    """The code in the first cell; in double ticks where it has some itself."""
    return re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", row[0])


def test_every_line_of_a_warning_or_worse_has_an_entry() -> None:
    entries = {entry(row) for row in rows()}
    assert not sorted("%s (%s)" % (line.text, line.where) for text, line in LINES.items() if text not in entries)


def test_every_entry_is_a_line_that_the_source_has() -> None:
    assert not sorted({entry(row) for row in rows()} - set(LINES))


def test_every_entry_is_there_once_and_says_what_it_means_and_what_to_do() -> None:
    entries = [entry(row) for row in rows()]
    assert sorted(set(entries)) == sorted(entries)
    assert all(len(row) == 3 and all(row) for row in rows())


def test_a_guide_begins_with_what_to_do_at_night() -> None:
    """The first section; and what it links to is there, as GitHub names headings."""
    headings = re.findall(r"^##+ (.+)$", GUIDE, re.MULTILINE)
    assert headings[0] == "At 3 a.m."
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= anchors


SOURCE = """
from .service import Rarely
logger = getLogger(__name__)
_TABLE = {1: "Of a table %s", 2: "Of a table, too"}

class Thing:
    def __init__(self):
        self._moan = Rarely(logger.error)

    def say(self, path, event, detail):
        logger.warning(event, path, detail)

    def run(self, found):
        self.say("x", "Handed on %s: %d%%", 1)
        self._moan("Rare %r", 1)
        text = "Either" if found else "Or %s"
        logger.warning(text, 1)
        for number, sentence in _TABLE.items():
            logger.error(sentence, number)
        start(why="because of %s" % found)
        logger.info("No warning")
        parser.error("not logged")
"""


def test_lines_are_found_however_they_are_said(tmp_path: Path) -> None:
    """Through a function, a Rarely, a variable or a table."""
    (tmp_path / "thing.py").write_text(SOURCE)
    assert set(log_lines(tmp_path)) == {
        "Handed on …: …%",
        "Rare …",
        "Either",
        "Or …",
        "Of a table …",
        "Of a table, too",
        "…: because of …",
    }


def test_a_line_that_cannot_be_told_from_the_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("logger.warning(made() + 'x')\n")
    with pytest.raises(ValueError, match=r"thing\.py:1: what is said there cannot be told"):
        log_lines(tmp_path)


@pytest.mark.parametrize(
    "disguised",
    [
        "logging.warning('x')",
        "logger.warn('x')",
        "logger.log(30, 'x')",
        "logger.warning(msg='x')",
        "say = logger.warning",
        "run(partial(logger.error, 'x'))",
        "getattr(logger, 'error')('x')",
        "moan: Rarely = Rarely(logger.error)",
        "run(Rarely(logger.error))",
    ],
)
def test_what_would_be_said_unseen_is_an_error(tmp_path: Path, disguised: str) -> None:
    (tmp_path / "thing.py").write_text(disguised + "\n")
    with pytest.raises(ValueError, match=r"thing\.py:1: what is said there cannot be told"):
        log_lines(tmp_path)


def test_arguments_are_shown_as_what_differs() -> None:
    assert shown("%s of %5.1f %% and %-3d") == "… of … % and …"


def test_every_variable_playbook_and_command_of_the_guide_exists() -> None:
    """By the roles' specifications, the playbooks and the program's own help."""
    specified: set[str] = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry_point in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            specified |= set(entry_point.get("options") or {})
    playbooks = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/*.yml")}
    words = " ".join(playbooks.values())
    groups = {"shipper_brokers", "shipper_consumers", "shipper_producers"}
    named = set(re.findall(r"\b(?:shipper|broker|consumer|producer)_[a-z0-9_]+", GUIDE)) - groups
    assert not sorted(name for name in named - specified if not re.search(r"\b%s\b" % name, words))
    assert set(re.findall(r"logfleet\.shipper\.(\w+)", GUIDE)) == set(playbooks)
    usage = run_shipper("--help").stdout
    commands = {line.split()[0] for line in usage.splitlines() if line.startswith("    ") and line[4] != " "}
    assert set(re.findall(r"(?:`|^ +)shipper ([a-z]+)", GUIDE, re.MULTILINE)) <= commands
