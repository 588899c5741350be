# SPDX-License-Identifier: GPL-3.0-or-later
"""Durable mode bears the torture; and the torture notices when a safeguard is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.torture.sabotage import SABOTAGES

ROUNDS = 6
# Between them: one and two workers a group, three and four partitions, short and long windows for duplicates.
SEEDS = ("11", "24", "38")
# With which seed, and what it does to bytes; how many rounds it takes depends on the machine.
CAUGHT = {"no-truncation": ("24", "doubled"), "no-skipping": ("38", "doubled"), "commit-first": ("56", "lost")}
CAUGHT_WITHIN = 12
SECONDS = 240.0


class Torture:
    """A torture in its own process; result() waits for it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.torture", "--folder", str(folder), *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip

    def result(self) -> tuple[int, str]:
        output, _nothing = self._process.communicate(timeout=SECONDS)
        return self._process.returncode, output

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Torture]:
    made = Torture(tmp_path, *request.param)
    yield made
    made.end()


def arguments(seed: str, rounds: int, *more: str) -> list[str]:
    return ["--seed", seed, "--rounds", str(rounds), *more]


@pytest.mark.parametrize("run", [arguments(seed, ROUNDS) for seed in SEEDS], indirect=True, ids=SEEDS)
def test_every_byte_arrives_once_and_in_order(run: Torture) -> None:
    code, output = run.result()
    assert code == 0, output
    assert "bytes lost: 0, bytes doubled: 0, bytes foreign: 0, bytes out of order: 0" in output


@pytest.mark.parametrize(
    "run, wrong",
    [
        # What is wrong shows at once here: there is nothing that could put it right later.
        (arguments(seed, CAUGHT_WITHIN, "--sabotage", name, "--settle", "20", "--quiet", "3"), wrong)
        for name, (seed, wrong) in CAUGHT.items()
    ],
    indirect=["run"],
    ids=CAUGHT,
)
def test_a_missing_safeguard_is_noticed(run: Torture, wrong: str) -> None:
    code, output = run.result()
    assert code == 1, output
    found = re.search(r"bytes %s: (\d+)" % wrong, output)
    assert found is not None and int(found.group(1)), output


def test_every_sabotage_is_tried() -> None:
    assert set(CAUGHT) == set(SABOTAGES)


def test_a_sabotage_that_finds_no_target_is_no_success(tmp_path: Path) -> None:
    program = (
        "import shipper_runtime.vault as vault; del vault.Vault.cut_back\n"
        "from tests.torture.sabotage import main; raise SystemExit(main(['no-truncation', 'consumer']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "finds no target" in done.stderr
