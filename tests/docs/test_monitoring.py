# SPDX-License-Identifier: GPL-3.0-or-later
"""Dashboard, alerts and docs/metrics.md against what the programs really show."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.checkers.promtool import NoPromtool, promtool
from tests.integration.durable import DurableFleet
from tests.integration.test_meters import free_port
from tests.support import ROOT, Shipper

MONITORING = ROOT / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

# What Prometheus adds, and the label that docs/monitoring/scrape.yml gives.
ADDED = {"job", "instance", "group"}
# A metric with what stands in braces behind it.
_SELECTOR = re.compile(r"\b(shipper_[a-z_]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
_CLAUSE = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")

Labels = dict[str, set[str]]


@dataclass(frozen=True)
class Answer:
    """What a program shows: the text, the types of its metrics, and the names of each one's labels."""

    text: str
    types: dict[str, str]
    labels: Labels


def scrape(port: int) -> Answer:
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=5) as answer:
        text = answer.read().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: Labels = {name: set() for name in types}
    for name, pairs in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        labels[name] |= set(re.findall(r'([a-z_]+)="', pairs))
    return Answer(text, types, labels)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """What a producer, a consumer of streams and one without show, each at work."""
    folder = tmp_path_factory.mktemp("fleet")
    ports = {"producer": free_port(), "consumer": free_port(), "core": free_port()}
    fleet = DurableFleet(folder)
    core = {
        "NATS_URL": fleet.server.url,
        "SHIPPER_SUBJECT": "other",
        "SHIPPER_DIRECTORY": str(folder / "core"),
        "SHIPPER_OUTPUT": "log-%Y%m%d",
        "SHIPPER_METRICS": "127.0.0.1:%d" % ports["core"],
    }
    try:
        with (
            fleet.producer(SHIPPER_METRICS="127.0.0.1:%d" % ports["producer"]),
            fleet.consumer(SHIPPER_METRICS="127.0.0.1:%d" % ports["consumer"]),
            Shipper("consumer", core, folder / "core.log") as plain,
        ):
            plain.wait_for_log("Waiting for messages")
            fleet.expect(fleet.write(100))
            fleet.settle()
            yield {program: scrape(port) for program, port in ports.items()}
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def labels(shown: dict[str, Answer]) -> Labels:
    """All metrics, and the labels that each has in some program."""
    together: Labels = {"up": set()}
    for answer in shown.values():
        for name, found in answer.labels.items():
            together.setdefault(name, set()).update(found)
    return together


def documented(section: str) -> dict[str, tuple[str, set[str]]]:
    """The rows of a table of docs/metrics.md: type and labels by name."""
    text = METRICS_PAGE.partition("\n## %s\n" % section)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(shipper_[a-z_]+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", named))) for name, kind, named in rows}


def expressions() -> dict[str, str]:
    """Everything that is asked of Prometheus, by where it stands."""
    found = {"alert %s" % rule["alert"]: rule["expr"] for rule in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found["panel %s, %s" % (panel["title"], target["refId"])] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found["variable %s" % variable["name"]] = variable["definition"]
    for number, expr in enumerate(re.findall(r"^- `([^`]+)`", METRICS_PAGE, re.MULTILINE)):
        found["docs/metrics.md, %d" % number] = expr
    return found


@pytest.mark.parametrize(("section", "programs"), [("Producer", ["producer"]), ("Consumer", ["consumer", "core"])])
def test_the_page_documents_exactly_what_is_shown(section: str, programs: list[str], shown: dict[str, Answer]) -> None:
    """Names, types and labels."""
    page = documented(section)
    for program in programs:
        assert shown[program].types == {name: kind for name, (kind, _named) in page.items()}
    for name, (_kind, named) in page.items():
        assert named == set().union(*(shown[program].labels[name] for program in programs)), name


@pytest.mark.parametrize(("program", "lacks"), [("consumer", "without"), ("core", "with")])
def test_the_page_says_which_metrics_have_no_value_with_or_without_streams(
    program: str, lacks: str, shown: dict[str, Answer]
) -> None:
    row = r"^\| `(shipper_[a-z_]+)` \|.*\| %s `SHIPPER_STREAM` only: " % lacks
    valued = set(re.findall(r"^(shipper_[a-z_]+)(?:\{.*\})? \S+$", shown[program].text, re.MULTILINE))
    assert set(shown[program].types) - valued == set(re.findall(row, METRICS_PAGE, re.MULTILINE))


@pytest.mark.parametrize("where", expressions())
def test_every_metric_and_label_that_is_asked_for_is_there(where: str, labels: Labels) -> None:
    expr = expressions()[where]
    expr = re.sub(r"label_values\((.*), *(\w+)\)", r"count by (\2) (\1)", expr)
    found = _SELECTOR.findall(re.sub(r'"[^"]*"', '""', expr))
    assert found
    available = set(ADDED)
    for name, braces in found:
        assert name in labels, "%s asks for %s" % (where, name)
        asked = set(_MATCHER.findall(braces))
        assert asked <= labels[name] | ADDED, "%s asks %s for %s" % (where, name, asked)
        available |= labels[name]
    for clause in _CLAUSE.findall(expr):
        assert {label.strip() for label in clause.split(",")} <= available, where


def test_every_metric_is_on_the_dashboard(labels: Labels) -> None:
    text = " ".join(expr for where, expr in expressions().items() if where.startswith("panel"))
    assert set(labels) == {name for name, _braces in _SELECTOR.findall(text)}


def test_every_alert_is_told_of_on_the_page() -> None:
    assert set(re.findall(r"`(Shipper[A-Z]\w+)`", METRICS_PAGE)) == {rule["alert"] for rule in ALERTS}


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return promtool()
    except NoPromtool as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["producer", "consumer", "core"])
def test_what_a_program_shows_is_as_prometheus_wants_it(name: str, shown: dict[str, Answer], program: Path) -> None:
    """Its own linter has nothing to say: not about the format, nor about names."""
    check = [str(program), "check", "metrics"]
    done = subprocess.run(check, input=shown[name].text, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_dashboard_asks_is_promql(program: Path, tmp_path: Path) -> None:
    """Every panel's question, with its variables filled in, as a rule that promtool looks at."""
    rules = []
    for number, (where, expr) in enumerate(expressions().items()):
        if where.startswith("panel"):
            filled = re.sub(r"\$(job|instance)\b", ".*", expr).replace("$__rate_interval", "5m")
            assert "$" not in filled, where
            rules.append({"record": "panel:%d" % number, "expr": filled, "labels": {"where": where}})
    assert len(rules) > 20
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [str(program), "check", "rules", str(file)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source of somebody's, no number of a database's row, and its panels do not overlap."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used <= set(variables)
    assert set(variables) <= used
    source = {"type": "prometheus", "uid": "${datasource}"}
    for variable in variables.values():
        assert variable["type"] == "datasource" or variable["datasource"] == source
    for panel in PANELS:
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        assert panel["description"].endswith(".")
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered


def test_the_first_rows_are_what_an_operator_asks_first() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is anything wrong?",
        "Which partition lags?",
        "Which host lags?",
        "What was lost, rejected, refused?",
        "Throughput",
        "Who owns what, and are they connected?",
    ]
