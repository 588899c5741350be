# SPDX-License-Identifier: GPL-3.0-or-later
"""SHIPPER_OUTPUT: names that sort by time, never collide, and can be told from foreign ones."""

from __future__ import annotations

from calendar import timegm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.errors import SettingError
from shipper_runtime.output import OutputPattern, parse_output

DAY = 86400


def at(text: str) -> int:
    date, _nothing, clock = text.partition(" ")
    year, month, day = (int(part) for part in date.split("-"))
    hour, minute, second = (int(part) for part in (clock or "0:0:0").split(":"))
    return timegm((year, month, day, hour, minute, second))


SORTING = [
    ("messages", 3600),
    ("messages-%Y%m%d", DAY),
    ("%Y/%m/%d/messages.log", DAY),
    ("%Y/%m/messages-%Y%m%d", DAY),
    ("%Y-%j", DAY),
    ("%F", DAY),
    ("%FT%TZ", 1),
    ("log-%F_%R", 60),
    ("%G-W%V", DAY),
    ("%G-W%V-%u", DAY),
    ("%Y-W%W", DAY),
    ("%Y%m", DAY),
    ("%Y", DAY),
    ("%Y-%m-%d-%a", DAY),
    ("%Y-%m-%b-%d", DAY),
    ("%s", 1),
    ("100%%-%Y%m%d", DAY),
    ("%Y%m%d%H", 3600),
    ("%Y%m%d%H%M%S", 7),
    ("{source}", 60),
    ("{source}-%Y%m%d", DAY),
    ("{source}/%Y%m%d.log", DAY),
    ("%Y%m%d/{source}", DAY),
    ("%Y/{source}/%m%d", DAY),
    (".{source}.%Y%m%d", DAY),
    ("größe-%Y%m%d", DAY),
]
REFUSED = [
    ("%d-%m-%Y", DAY, "%d must stand behind %m"),
    ("%H", 3600, "%H must stand behind %d"),
    ("messages-%d", DAY, "%d must stand behind %m"),
    ("%m%d%Y", DAY, "%m must stand behind %Y"),
    ("%Y%d", DAY, "%d must stand behind %m"),
    ("%Y%m%d%M", 60, "%M must stand behind %H"),
    ("%Y-W%V", DAY, "%V must stand behind %G"),
    ("%G%m%d", DAY, "%m must stand behind %Y"),
    ("%y%m%d", DAY, "%y must stand behind %Y"),
    ("%Y-%b-%d", DAY, "%b must stand behind %m"),
    ("%c", DAY, "%c has no fixed width"),
    ("%x", DAY, "%x has no fixed width"),
    ("%D", DAY, "%D has no fixed width"),
    ("%Y%m%d-%B", DAY, "%B has no fixed width"),
    ("%Y%m%e", DAY, "%e has no fixed width"),
    ("%-d", DAY, "%- has no fixed width"),
    ("%Q", DAY, "%Q has no fixed width"),
    ("%{source}", DAY, "%{ has no fixed width"),
    ("%Y%", DAY, "% at the end has no"),
    ("a%%b", DAY, "would not tell the time"),
    ("messages-%Y%m%d", 3600, "add %H, or set SHIPPER_ROTATE to 1d"),
    ("messages-%Y%m%d%H", 60, "add %M, or set SHIPPER_ROTATE to 1h"),
    ("messages", 1, "add %S, or set SHIPPER_ROTATE to 1m"),
    ("/var/log/%Y%m%d", DAY, "take the leading / out"),
    ("../%Y%m%d", DAY, "empty, . or .."),
    ("a/../%Y%m%d", DAY, "empty, . or .."),
    ("./%Y%m%d", DAY, "empty, . or .."),
    ("a//%Y%m%d", DAY, "empty, . or .."),
    ("%Y%m%d/", DAY, "empty, . or .."),
    ("{source}/../%Y%m%d", DAY, "empty, . or .."),
    ("/{source}-%Y%m%d", DAY, "take the leading / out"),
    ("a\0-%Y%m%d", DAY, "control characters"),
    ("a\n-%Y%m%d", DAY, "control characters"),
    ("a" * 250 + "-%Y%m%d", DAY, "too long"),
    ("{source}" + "a" * 190 + "-%Y%m%d", DAY, "too long"),
    ("{source}{source}%Y%m%d", DAY, "{source} once"),
    ("{sorce}-%Y%m%d", DAY, "only {source}"),
    ("{host}-%Y%m%d", DAY, "only {source}"),
    ("a}-%Y%m%d", DAY, "only {source}"),
]

parts = st.one_of(
    st.sampled_from([b"plain", b"plain~", b"a", b"a~", b"%Y", b"{source}", b"20240229", b"x" * 255, b"x" * 254 + b"y"]),
    st.binary(min_size=1, max_size=255).filter(lambda part: not {0, 0x2F} & set(part) and part not in (b".", b"..")),
)
sources = st.one_of(st.none(), st.lists(parts, min_size=1, max_size=4).map(lambda names: b"/" + b"/".join(names)))
patterns = st.builds(lambda case, packed: parse_output(*case, packed), st.sampled_from(SORTING), st.booleans())
stamps = st.integers(at("2001-09-10"), at("2199-12-31"))


@pytest.mark.parametrize(("pattern", "rotate"), SORTING)
def test_a_pattern_that_sorts_by_time_is_taken(pattern: str, rotate: int) -> None:
    assert parse_output(pattern, rotate).rotate == rotate


@pytest.mark.parametrize(("pattern", "rotate", "why"), REFUSED)
def test_a_pattern_that_cannot_work_is_refused_with_a_remedy(pattern: str, rotate: int, why: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_output(pattern, rotate)
    assert refused.value.variable == "SHIPPER_OUTPUT"
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_are_those_of_strftime_in_utc_at_the_periods_start() -> None:
    moment = at("2024-02-29 13:14:15")

    def name(pattern: str, rotate: int, source: bytes | None = None) -> bytes:
        output = parse_output(pattern, rotate)
        return output.name(source, output.period(moment))

    assert name("messages", DAY) == b"messages-202402290000"
    assert name("messages-%Y%m%d", DAY) == b"messages-20240229"
    assert name("%Y-%m-%dT%H:%M:%S", 3600) == b"2024-02-29T13:00:00"
    assert name("%s", 10) == b"1709212450"
    assert name("100%%Y-%Y%m%d", DAY) == b"100%Y-20240229"
    assert name("{source}-%Y%m%d", DAY, b"/var/log/app.log") == b"var/log/app.log-20240229"
    assert name("{source}-%Y%m%d", DAY, b"/var/log/%Y{source}\xff") == b"var/log/%Y{source}\xff-20240229"
    assert name("{source}-%Y%m%d", DAY) == b"plain-20240229"
    assert name("{source}", 3600, b"/a") == b"a-202402291300"
    assert name("%F/{source}", DAY, b"/a/b") == b"2024-02-29/a/b"


def test_a_period_of_a_week_begins_on_a_thursday_as_the_epoch_did() -> None:
    output = parse_output("%Y%m%d", 7 * DAY)
    assert output.name(None, output.period(at("2024-02-28 23:59:59"))) == b"20240222"
    assert output.name(None, output.period(at("2024-02-29"))) == b"20240229"


def test_a_file_named_plain_does_not_share_a_name_with_plain_messages() -> None:
    output = parse_output("{source}-%Y", DAY)
    names = [output.name(source, 0) for source in (None, b"/plain", b"/plain~", b"/plain/x", b"/a/plain")]
    assert names == [b"plain-1970", b"plain~-1970", b"plain~~-1970", b"plain~/x-1970", b"a/plain-1970"]


@given(patterns, sources, sources, stamps, stamps)
def test_names_are_the_same_only_for_the_same_source_and_time(
    output: OutputPattern, one: bytes | None, other: bytes | None, stamp: int, later: int
) -> None:
    first, second = output.name(one, output.period(stamp)), output.name(other, output.period(later))
    if output.has_source and one != other:
        assert first != second
    elif output.period(stamp) == output.period(later):
        assert first == second
    elif abs(stamp - later) > 366 * DAY + output.rotate:
        assert first != second


@given(patterns, sources, stamps, stamps)
def test_a_sources_names_sort_by_time(output: OutputPattern, source: bytes | None, stamp: int, later: int) -> None:
    stamp, later = sorted((stamp, later))
    assert output.name(source, output.period(stamp)) <= output.name(source, output.period(later))


@given(patterns, stamps)
def test_periods_below_a_day_never_share_a_name(output: OutputPattern, stamp: int) -> None:
    start = output.period(stamp)
    if output.rotate < DAY:
        assert output.name(b"/a", start) < output.name(b"/a", start + output.rotate)


@given(patterns, sources, stamps)
def test_a_name_stays_below_its_hosts_folder_and_fits_a_file_system(
    output: OutputPattern, source: bytes | None, stamp: int
) -> None:
    for part in output.name(source, output.period(stamp)).split(b"/"):
        assert part not in (b"", b".", b"..")
        assert len(part) <= 255
        assert b"\0" not in part


@given(patterns, sources, stamps, st.integers(-3, 3), st.integers(1, 10 * DAY))
def test_a_file_is_kept_until_max_age_after_the_last_period_that_has_its_name(
    output: OutputPattern, source: bytes | None, stamp: int, periods: int, max_age: int
) -> None:
    start = output.period(stamp)
    name = output.name(source, start)
    now = start + output.rotate + max_age + periods * output.rotate
    last = start
    while output.name(source, last + output.rotate) == name:
        last += output.rotate
    assert output.is_older(name, output.first_kept(now, max_age)) == (now >= last + output.rotate + max_age)


def test_an_endless_max_age_keeps_everything() -> None:
    output = parse_output("messages-%Y%m%d", DAY)
    assert output.first_kept(at("2024-01-01"), 999999999 * 7 * DAY) == 0
    assert not output.is_older(b"messages-19700101", 0)


def test_names_of_compressed_files_say_so_and_sort_as_before() -> None:
    for pattern in ("messages-%Y%m%d", "{source}-%Y%m%d", "%Y%m%d/{source}", "%Y%m%d/{source}.log"):
        plain, packed = parse_output(pattern, DAY), parse_output(pattern, DAY, packed=True)
        for source in (None, b"/var/log/a", b"/" + b"x" * 255, b"/x/" + b"y" * 252):
            name = packed.name(source, at("2024-01-31"))
            assert name.endswith(b".gz") and len(name.rpartition(b"/")[2]) <= 255
            assert name < packed.name(source, at("2024-02-01"))
            # Long ones are shortened to leave room for it.
            assert len(source or b"") > 250 or name == plain.name(source, at("2024-01-31")) + b".gz"
            assert packed.is_older(name, at("2024-02-01")) and not packed.is_older(name, at("2024-01-31"))
    assert parse_output("messages", DAY, packed=True).name(None, 0) == b"messages-197001010000.gz"


def test_a_name_may_be_as_long_as_it_can_be() -> None:
    pattern = "a" * 247 + "%Y%m%d"
    assert len(parse_output(pattern, DAY).name(None, 0)) == 255
    with pytest.raises(SettingError, match="too long"):
        parse_output(pattern, DAY, packed=True)


def test_what_was_not_compressed_yet_expires_too() -> None:
    output = parse_output("messages-%Y%m%d", DAY, packed=True)
    assert output.is_older(b"messages-20200101", at("2024-01-01"))
    assert not output.is_older(b"messages-20200101.gz.gz", at("2024-01-01"))
    assert not output.is_older(b"messages-20200101.xz", at("2024-01-01"))


FOREIGN = """messages messages-2020010 messages-202001011 messages-20200101.gz xmessages-20200101 sub/messages-20200101
    messages-20201301 messages-20200132 MESSAGES-20200101"""


@pytest.mark.parametrize("name", [*FOREIGN.encode().split(), b"messages-20200101\n"])
def test_a_foreign_file_never_expires(name: bytes) -> None:
    output = parse_output("messages-%Y%m%d", DAY)
    assert output.is_older(b"messages-20200101", at("2024-01-01"))
    assert not output.is_older(name, at("2024-01-01"))
