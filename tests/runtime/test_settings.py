# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.errors import SettingError
from shipper_runtime.settings import (
    VARIABLES,
    Listen,
    StreamLimits,
    consumer_settings,
    fleet_settings,
    partition_stream,
    producer_settings,
    stream_limits,
)

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
    return consumer_settings({**CONSUMER, **env}, "a1")


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
    [
        ("0", (0,)),
        ("0,1,2", (0, 1, 2)),
        ("0-4,9", (0, 1, 2, 3, 4, 9)),
        ("9, 3-3,3", (3, 9)),
        ("65535", (65535,)),
        ("", (0,)),
        ("none", ()),
    ],
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
        {"SHIPPER_PARTITIONS": "65537"},
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
        {"SHIPPER_STREAM": "a b"},
        {"SHIPPER_STREAM": "a/b"},
        {"SHIPPER_STREAM": "ä"},
        {"SHIPPER_STREAM": "a" * 201},
        {"SHIPPER_COMPRESS": "zstd"},
        {"SHIPPER_COMPRESS": "gzip"},
        {"SHIPPER_RATE": "fast"},
        {"SHIPPER_RATE": "0"},
        {"SHIPPER_JITTER": "30"},
        {"SHIPPER_METRICS": "localhost"},
        {"SHIPPER_METRICS": ":9464"},
        {"SHIPPER_METRICS": "localhost:0"},
        {"SHIPPER_METRICS": "localhost:65536"},
        {"SHIPPER_METRICS": "localhost:http"},
        {"SHIPPER_METRICS": "localhost:\u00b2"},
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
    [
        {"SHIPPER_READ_PARTITIONS": value}
        for value in ("a", "1-", "-1", "4-0", "0,,1", "0-999999999", "65536", "0;1", "1.5", "none,1")
    ]
    + [{"SHIPPER_ROTATE": value} for value in ("1", "d", "0d", "1x", "-1d", "1.5h", "1d ")]
    + [
        {"SHIPPER_MAX_AGE": "week"},
        {"SHIPPER_PLAIN": "maybe"},
        {"SHIPPER_GROUP": "a.b"},
        {"SHIPPER_STREAM": "logs>"},
        {"SHIPPER_METRICS": "9464"},
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


def test_without_a_stream_it_is_core_nats() -> None:
    assert (producer().stream, consumer().stream) == (None, None)
    assert (producer(SHIPPER_STREAM="").stream, consumer(SHIPPER_STREAM="").stream) == (None, None)


def test_a_producer_has_its_partitions_stream_and_a_consumer_what_their_names_begin_with() -> None:
    assert producer(SHIPPER_STREAM="logs", SHIPPER_PARTITIONS="10").stream == "logs-p5"
    assert consumer(SHIPPER_STREAM="a-_Z9").stream == "a-_Z9"
    assert partition_stream("logs", 12) == "logs-p12"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None),
        ("127.0.0.1:9464", Listen("127.0.0.1", 9464)),
        ("localhost:1", Listen("localhost", 1)),
        ("[::1]:65535", Listen("::1", 65535)),
        ("0.0.0.0:09464", Listen("0.0.0.0", 9464)),
    ],
)
def test_metrics_are_served_at_a_host_and_a_port(value: str, expected: Listen | None) -> None:
    assert producer(SHIPPER_METRICS=value).metrics == expected
    assert consumer(SHIPPER_METRICS=value).metrics == expected


FLEET = {"NATS_URL": "localhost:4222", "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}


def test_a_fleet_has_one_stream_for_each_partition_and_one_without_any() -> None:
    settings = fleet_settings({**FLEET, "SHIPPER_PARTITIONS": "3"})
    assert (settings.prefix, settings.stream, list(settings.numbers)) == ("shipper", "logs", [0, 1, 2])
    assert list(fleet_settings(FLEET).numbers) == [0]
    assert list(fleet_settings({**FLEET, "SHIPPER_PARTITIONS": "0"}).numbers) == [0]


@pytest.mark.parametrize(
    "env",
    [
        {"SHIPPER_STREAM": ""},
        {"SHIPPER_STREAM": "a.b"},
        {"SHIPPER_SUBJECT": ""},
        {"SHIPPER_SUBJECT": "a.*"},
        {"NATS_URL": ""},
        {"SHIPPER_PARTITIONS": "-1"},
    ],
)
def test_a_setting_of_the_fleet_that_cannot_work_is_named(env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        fleet_settings({**FLEET, **env})
    (name,) = env
    assert str(caught.value).startswith(name)


def test_a_stream_has_the_limits_of_the_contract() -> None:
    assert stream_limits({}) == StreamLimits(max_bytes=2**30, replicas=1, max_age=0, duplicates=120)
    unset = dict.fromkeys(
        ("SHIPPER_STREAM_MAX_BYTES", "SHIPPER_STREAM_REPLICAS", "SHIPPER_STREAM_MAX_AGE", "SHIPPER_STREAM_DUPLICATES"),
        "",
    )
    assert stream_limits(unset) == stream_limits({})


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("1048576", 2**20), ("1048576B", 2**20), ("1024KiB", 2**20), ("1MiB", 2**20), ("3GiB", 3 * 2**30),
        ("2TiB", 2**41), ("2000kB", 2 * 10**6), ("2000KB", 2 * 10**6), ("2MB", 2 * 10**6), ("2GB", 2 * 10**9),
        ("2TB", 2 * 10**12), ("512 MiB", 2**29), ("9223372036854775807", None), ("8388607TiB", 8388607 * 2**40),
    ],
)  # fmt: skip
def test_a_size_is_a_number_and_a_unit(value: str, count: int | None) -> None:
    if count is None:
        # 19 digits are more than the program reads, whatever they say.
        with pytest.raises(SettingError):
            stream_limits({"SHIPPER_STREAM_MAX_BYTES": value})
    else:
        assert stream_limits({"SHIPPER_STREAM_MAX_BYTES": value}).max_bytes == count


@pytest.mark.parametrize(
    ("value", "seconds"), [("", 0), ("0", 0), ("120s", 120), ("90m", 5400), ("2w", 1209600), ("36500d", 36500 * 86400)]
)
def test_a_streams_age_is_a_duration_or_none(value: str, seconds: int) -> None:
    assert stream_limits({"SHIPPER_STREAM_MAX_AGE": value}).max_age == seconds


@pytest.mark.parametrize(
    "env",
    [
        {"SHIPPER_STREAM_MAX_BYTES": value}
        for value in ("0", "-1", "1.5GiB", "GiB", "1gib", "1 GiBs", "1024", "1023KiB", "1MB", "٣GiB", "1GiB\n", "1e9")
    ]
    + [{"SHIPPER_STREAM_MAX_BYTES": value} for value in ("8388608TiB", "999999999999999999TiB")]
    + [{"SHIPPER_STREAM_REPLICAS": value} for value in ("0", "6", "-1", "three", "1.0")]
    + [{"SHIPPER_STREAM_MAX_AGE": value} for value in ("1", "0s", "-1d", "never", "36501d", "999999999w")]
    + [{"SHIPPER_STREAM_DUPLICATES": value} for value in ("0", "2", "2min", "999999999w")]
    + [{"SHIPPER_STREAM_DUPLICATES": "2h", "SHIPPER_STREAM_MAX_AGE": "1h"}],
)
def test_a_limit_of_a_stream_that_cannot_work_is_named(env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        stream_limits(env)
    assert str(caught.value).startswith(next(iter(env)))
    assert "\n" not in str(caught.value)


def test_duplicates_that_are_known_for_longer_than_a_message_are_named_by_default_too() -> None:
    with pytest.raises(SettingError, match=r"SHIPPER_STREAM_DUPLICATES=2m: .*SHIPPER_STREAM_MAX_AGE"):
        stream_limits({"SHIPPER_STREAM_MAX_AGE": "1m"})


NUMBERS = st.integers(0, 10**19).map(str) | st.integers(0, 10).map(str)
SIZES = st.builds("{}{}".format, NUMBERS, st.sampled_from(["", "B", "kB", "MB", "TB", "KiB", "GiB", "TiB"]))
TIMES = st.builds("{}{}".format, NUMBERS, st.sampled_from(["s", "m", "h", "d", "w"]))


NONSENSE = st.text("019 GiBsmhdw.-\n\0٣", max_size=9)


@given(SIZES | NONSENSE, TIMES | NONSENSE, NUMBERS | NONSENSE, TIMES | NONSENSE)
def test_limits_are_what_a_broker_can_count_or_one_line_of_error(size: str, age: str, copies: str, known: str) -> None:
    env = {
        "SHIPPER_STREAM_MAX_BYTES": size,
        "SHIPPER_STREAM_MAX_AGE": age,
        "SHIPPER_STREAM_REPLICAS": copies,
        "SHIPPER_STREAM_DUPLICATES": known,
    }
    try:
        limits = stream_limits(env)
    except SettingError as error:
        assert "\n" not in str(error)
        return
    assert 2**20 <= limits.max_bytes < 2**63
    assert 1 <= limits.replicas <= 5
    assert 0 <= limits.max_age * 10**9 < 2**63
    assert 0 < limits.duplicates * 10**9 < 2**63


def test_every_flag_is_its_variables_name() -> None:
    flags = {variable.name: variable.flag for variable in VARIABLES}
    assert flags["SHIPPER_FILE"] == "--file"
    assert flags["NATS_URL"] == "--nats-url"
    assert flags["SHIPPER_READ_PARTITIONS"] == "--read-partitions"
    assert len(set(flags.values())) == len(flags)
