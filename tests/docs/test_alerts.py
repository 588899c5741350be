# SPDX-License-Identifier: GPL-3.0-or-later
"""The alerts of docs/monitoring, as promtool runs them over series: each fires when it should, and only then."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.checkers.promtool import NoPromtool, promtool
from tests.support import ROOT

RULES = ROOT / "docs" / "monitoring" / "alerts.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}

PRODUCER = '{job="shipper-producer",instance="web1:9464"%s}'
OTHER = '{job="shipper-producer",instance="web2:9464"%s}'
CONSUMER = '{job="shipper-consumer",instance="a1:9465",group="archive"%s}'
SECOND = '{job="shipper-consumer",instance="a2:9465",group="archive"%s}'


def producer(metric: str, labels: str = "", at: str = PRODUCER) -> str:
    return metric + at % (labels and "," + labels)


def consumer(metric: str, labels: str = "", at: str = CONSUMER) -> str:
    return producer(metric, labels, at)


@dataclass(frozen=True)
class Case:
    """Series, a sample a minute, and the alerts that fire after so many minutes."""

    sentence: str
    series: dict[str, str]
    minutes: int
    firing: tuple[str, ...] = ()


P3 = 'partition="3"'
LAG, MESSAGES = "shipper_lag_seconds", "shipper_lag_messages"
COMMITTED, LAST = "shipper_committed_messages_total", "shipper_last_commit_timestamp_seconds"
HOLES, REFUSED = "shipper_hole_bytes_total", "shipper_refused_total"
REJECTED, DROPPED = "shipper_rejected_messages_total", "shipper_dropped_messages_total"

CASES = (
    Case(
        "a fleet that is well",
        {
            producer("up"): "1x60",
            producer("shipper_lag_bytes"): "0+100x60",
            producer(LAG): "2x60",
            producer(REFUSED, 'reason="full"'): "0x60",
            producer(REFUSED, 'reason="not_permitted"'): "0x60",
            producer("shipper_reconnects_total"): "0x30 1x30",
            consumer("up"): "1x60",
            consumer(COMMITTED, P3): "0+100x60",
            consumer(MESSAGES, P3): "5x60",
            consumer(LAG, P3): "1x60",
            consumer(LAST, P3): "0+60x60",
            consumer(HOLES, P3): "0x60",
            consumer(DROPPED, P3): "0x60",
            consumer(REJECTED, 'reason="bad host"'): "0x60",
            consumer("shipper_reconnects_total"): "0x60",
        },
        50,
    ),
    Case("the first hole of a process", {consumer(HOLES, P3): "0x20 512x20"}, 25, ("ShipperBytesMissing",)),
    Case("a hole of an hour ago", {consumer(HOLES, P3): "0x5 512x60"}, 60),
    Case("a process that began anew after a hole", {consumer(HOLES, P3): "512x20 0x30"}, 40),
    Case("lines that were dropped", {consumer(DROPPED, P3): "0x20 7x20"}, 25, ("ShipperMessagesDropped",)),
    Case("lines that were dropped once", {consumer(DROPPED, P3): "0x5 7x60"}, 60),
    Case(
        "somebody's messages",
        {consumer(REJECTED, 'reason="bad host"'): "0x20 1x20"},
        25,
        ("ShipperMessagesRejected",),
    ),
    Case("nobody's messages", {consumer(REJECTED, 'reason="bad host"'): "3x40"}, 30),
    Case("a host that does not get through", {producer(LAG): "0+60x20"}, 10, ("ShipperProducerBehind",)),
    Case("a host that waits for less than five minutes", {producer(LAG): "0+60x4 0x20"}, 5),
    Case(
        "a full stream, of two hosts one alert",
        {producer(REFUSED, 'reason="full"'): "0x5 0+3x30", producer(REFUSED, 'reason="full"', OTHER): "0x5 0+3x30"},
        20,
        ("ShipperStreamFull",),
    ),
    Case("a broker without room", {producer(REFUSED, 'reason="no_room"'): "0+3x30"}, 20, ("ShipperStreamFull",)),
    Case("a stream that was full an hour ago", {producer(REFUSED, 'reason="full"'): "0+3x5 15x60"}, 60),
    Case(
        "a host that may not publish",
        {producer(REFUSED, 'reason="not_permitted"'): "0x5 0+3x30"},
        20,
        ("ShipperProducerRefused",),
    ),
    Case("no stream", {producer(REFUSED, 'reason="no_stream"'): "0+3x30"}, 20, ("ShipperProducerRefused",)),
    Case("a broker that did not answer", {producer(REFUSED, 'reason="no_answer"'): "0+3x30"}, 20),
    Case(
        "an archive that is behind, and works",
        {consumer(LAG, P3): "0+60x20", consumer(MESSAGES, P3): "900x20", consumer(LAST, P3): "0+60x20"},
        10,
        ("ShipperArchiveBehind",),
    ),
    Case(
        "an archive that was busy for a moment",
        {consumer(LAG, P3): "290x5 0x20", consumer(MESSAGES, P3): "900x20", consumer(LAST, P3): "0+60x20"},
        10,
    ),
    Case(
        "an archive that commits nothing more",
        {consumer(MESSAGES, P3): "10x30", consumer(LAST, P3): "0+60x5 300x25"},
        20,
        ("ShipperArchiveStuck",),
    ),
    Case("an archive that never committed anything", {consumer(MESSAGES, P3): "10x30"}, 20, ("ShipperArchiveStuck",)),
    Case("an archive that has nothing to do", {consumer(MESSAGES, P3): "0x30", consumer(LAST, P3): "0x30"}, 20),
    Case(
        "a partition that its consumer cannot read",
        {consumer(COMMITTED, P3): "5x30", consumer(MESSAGES, P3): "0x10 stale"},
        20,
        ("ShipperPartitionNotRead",),
    ),
    Case(
        "a partition of which the other consumer waits for the first",
        {consumer(COMMITTED, P3): "5x30", consumer(COMMITTED, P3, SECOND): "0x30", consumer(MESSAGES, P3): "0x30"},
        20,
    ),
    Case(
        "a partition that two read",
        {consumer(MESSAGES, P3): "0x30", consumer(MESSAGES, P3, SECOND): "0x30"},
        20,
        ("ShipperPartitionTwice",),
    ),
    Case(
        "a partition that two read for a minute",
        {consumer(MESSAGES, P3): "0x10 stale", consumer(MESSAGES, P3, SECOND): "_x9 0x30"},
        20,
    ),
    Case(
        "a partition that two groups read",
        {consumer(MESSAGES, P3): "0x30", consumer(MESSAGES, P3).replace('"archive"', '"copy"'): "0x30"},
        20,
    ),
    Case("a process that is down", {producer("up"): "1x5 0x30"}, 20, ("ShipperDown",)),
    Case("a process that was started anew", {producer("up"): "1x5 0x2 1x30"}, 20),
    Case("a process of somebody else that is down", {'up{job="node",instance="web1:9100"}': "0x30"}, 20),
    Case(
        "a connection that is lost every two minutes",
        {producer("shipper_reconnects_total"): "0 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9 10 10"},
        20,
        ("ShipperReconnects",),
    ),
    Case("a broker that was restarted", {producer("shipper_reconnects_total"): "0x10 1x10"}, 15),
)


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return promtool()
    except NoPromtool as reason:
        pytest.skip(str(reason))


def run(program: Path, *arguments: str) -> None:
    done = subprocess.run([str(program), *arguments], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_scrape_configuration(program: Path, tmp_path: Path) -> None:
    run(program, "check", "rules", str(RULES))
    scrape = tmp_path / "prometheus.yml"
    scrape.write_text((RULES.parent / "scrape.yml").read_text())
    (tmp_path / "alerts.yml").write_text(RULES.read_text())
    run(program, "check", "config", str(scrape))


def test_each_alert_fires_when_it_should_and_not_when_it_should_not(program: Path, tmp_path: Path) -> None:
    """All cases in one run; one that fails is named by its sentence."""
    tests: list[dict[str, Any]] = []
    for case in CASES:
        expression = 'count by (alertname) (ALERTS{alertstate="firing"})'
        samples = [{"labels": '{alertname="%s"}' % name, "value": 1} for name in sorted(case.firing)]
        tests.append(
            {
                "name": case.sentence,
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "%dm" % case.minutes, "exp_samples": samples},
                ],
            }
        )
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run(program, "test", "rules", str(file))


def test_a_case_that_is_wrong_is_found(program: Path, tmp_path: Path) -> None:
    """promtool really runs them."""
    wrong = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": producer("up"), "values": "0x30"}],
                "promql_expr_test": [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": "20m", "exp_samples": []}],
            }
        ],
    }
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="ShipperDown"):
        run(program, "test", "rules", str(tmp_path / "wrong.yml"))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_that_fires_and_says_what_to_do(alert: str) -> None:
    """The cases that do not fire are all the others; most are about one alert each."""
    assert any(alert in case.firing for case in CASES)
    annotations = ALERTS[alert]["annotations"]
    assert set(annotations) == {"summary", "description", "action"}
    assert ALERTS[alert]["labels"]["severity"] in ("critical", "warning")


def test_what_a_person_reads_is_filled_in(program: Path, tmp_path: Path) -> None:
    """The sentences of an alert, as they arrive."""
    expected = {name: " ".join(text.split()) for name, text in ALERTS["ShipperStreamFull"]["annotations"].items()}
    expected["summary"] = "Hosts from which the broker takes nothing: 1, for the reason full"
    case = {
        "interval": "1m",
        "input_series": [{"series": producer(REFUSED, 'reason="full"'), "values": "0+3x30"}],
        "alert_rule_test": [
            {
                "alertname": "ShipperStreamFull",
                "eval_time": "20m",
                "exp_alerts": [
                    {"exp_labels": {"severity": "critical", "reason": "full"}, "exp_annotations": expected},
                ],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}, width=10000))
    run(program, "test", "rules", str(tmp_path / "case.yml"))
