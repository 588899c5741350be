# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from shipper_runtime.errors import SettingError
from shipper_runtime.settings import VARIABLES, consumer_settings, producer_settings

PRODUCER = {"NATS_URL": "localhost:4222", "SHIPPER_SUBJECT": "shipper", "SHIPPER_FILE": "/var/log/messages"}
CONSUMER = {
    "NATS_URL": "localhost:4222",
    "SHIPPER_SUBJECT": "shipper",
    "SHIPPER_DIRECTORY": "/srv/logs",
    "SHIPPER_OUTPUT": "logfile",
}


def producer(**env: str) -> Any:
    return producer_settings({**PRODUCER, **env}, "web1.example.net")


def consumer(**env: str) -> Any:
    return consumer_settings({**CONSUMER, **env})


def test_defaults_are_those_of_the_contract() -> None:
    settings = producer()
    assert (settings.subject, settings.partition) == ("shipper.p0.web1.example.net", 0)
    assert (settings.start, settings.state) == ("beginning", "/var/lib/shipper")
    reader = consumer()
    assert (reader.partitions, reader.rotate, reader.max_age) == ((0,), 86400, 7 * 86400)
    assert (reader.accept_plain, reader.group) == (True, "archive")


def test_the_subject_holds_the_computed_partition() -> None:
    assert producer(SHIPPER_PARTITIONS="10").subject == "shipper.p5.web1.example.net"
    assert producer(SHIPPER_PARTITIONS="10", HOSTNAME="foo").subject == "shipper.p3.foo"
    assert producer(SHIPPER_PARTITIONS="10", SHIPPER_PARTITION="5").partition == 5


def test_an_empty_variable_is_unset() -> None:
    assert producer(HOSTNAME="", SHIPPER_PARTITIONS="", SHIPPER_PARTITION="", SHIPPER_START="").partition == 0


def test_files_are_separated_by_colons() -> None:
    assert producer(SHIPPER_FILE="/a:/b*:/c").files == ("/a", "/b*", "/c")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", (0,)), ("0,1,2", (0, 1, 2)), ("0-4,9", (0, 1, 2, 3, 4, 9)), ("9, 3-3,3", (3, 9)), ("", (0,))],
)
def test_partitions_are_numbers_and_ranges(value: str, expected: tuple[int, ...]) -> None:
    assert consumer(SHIPPER_READ_PARTITIONS=value).partitions == expected


@pytest.mark.parametrize(("value", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1w", 604800)])
def test_a_duration_is_a_number_and_a_unit(value: str, seconds: int) -> None:
    assert consumer(SHIPPER_MAX_AGE=value).max_age == seconds


@pytest.mark.parametrize(
    "env",
    [
        {"SHIPPER_SUBJECT": "a.>"},
        {"SHIPPER_SUBJECT": ""},
        {"SHIPPER_FILE": ""},
        {"SHIPPER_FILE": "/a::/b"},
        {"SHIPPER_FILE": ":"},
        {"SHIPPER_PARTITIONS": "-1"},
        {"SHIPPER_PARTITIONS": "ten"},
        {"SHIPPER_PARTITIONS": "1_0"},
        {"SHIPPER_PARTITIONS": "٣"},
        {"SHIPPER_PARTITIONS": "10", "SHIPPER_PARTITION": "4"},
        {"SHIPPER_PARTITIONS": "10", "SHIPPER_PARTITION": "x"},
        {"HOSTNAME": "a b"},
        {"HOSTNAME": "web1..net"},
        {"SHIPPER_START": "middle"},
        {"NATS_URL": ""},
        {"NATS_CERTIFICATE": "/x"},
        {"NATS_KEY": "/x"},
        {"SHIPPER_STREAM": "a.b"},
        {"SHIPPER_STREAM": "a/b"},
        {"SHIPPER_METRICS": "localhost"},
        {"SHIPPER_METRICS": "localhost:0"},
    ],
)
def test_a_setting_of_the_producer_that_cannot_work_is_named(env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        producer(**env)
    text = str(caught.value)
    assert any(text.startswith(name) for name in (*env, "NATS_KEY", "NATS_CERTIFICATE"))
    assert "\n" not in text
    assert all(value in text for name, value in env.items() if text.startswith(name + "="))


@pytest.mark.parametrize(
    "env",
    [{"SHIPPER_READ_PARTITIONS": value} for value in ("a", "1-", "-1", "4-0", "0,,1", "0-999999999", "0;1", "1.5")]
    + [{"SHIPPER_ROTATE": value} for value in ("1", "d", "0d", "1x", "-1d", "1.5h", "1d ")]
    + [
        {"SHIPPER_MAX_AGE": "week"},
        {"SHIPPER_PLAIN": "maybe"},
        {"SHIPPER_GROUP": "a.b"},
        {"SHIPPER_DIRECTORY": ""},
        {"SHIPPER_OUTPUT": ""},
        {"SHIPPER_OUTPUT": "../x"},
    ],
)
def test_a_setting_of_the_consumer_that_cannot_work_is_named(env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        consumer(**env)
    (name,) = env
    assert str(caught.value).startswith(name)


def test_every_flag_is_its_variables_name() -> None:
    flags = {variable.name: variable.flag for variable in VARIABLES}
    assert flags["SHIPPER_FILE"] == "--file"
    assert flags["NATS_URL"] == "--nats-url"
    assert flags["SHIPPER_READ_PARTITIONS"] == "--read-partitions"
    assert len(set(flags.values())) == len(flags)
