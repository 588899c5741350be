# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.partition import fnv1a_32, host_subject, is_host, is_subject_prefix, partition


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)],
)
def test_the_hash_is_that_of_the_published_vectors(data: bytes, expected: int) -> None:
    assert fnv1a_32(data) == expected


@pytest.mark.parametrize(
    ("host", "count", "expected"),
    [
        ("foo", 10, 3),
        ("baz", 10, 0),
        ("qux", 10, 9),
        ("foo.bar", 10, 6),
        ("foo.baz", 10, 4),
        ("web1.example.net", 10, 5),
        *((("web%d.example.net" % n), 5, p) for n, p in ((1, 0), (2, 0), (3, 2), (4, 2))),
        *((("web%d.example.net" % n), 2, p) for n, p in ((1, 1), (2, 0), (3, 1), (4, 0))),
        ("anything", 0, 0),
        ("anything", 1, 0),
    ],
)
def test_hosts_land_where_fshipper_puts_them(host: str, count: int, expected: int) -> None:
    assert partition(host, count) == expected


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        partition("foo", -1)


@given(st.text(), st.integers(1, 1000))
def test_a_partition_is_below_the_count(host: str, count: int) -> None:
    assert 0 <= partition(host.encode("utf-8", "ignore").decode(), count) < count


@pytest.mark.parametrize("name", ["web1", "web1.example.net", "WEB_1-a", "1", "a" * 253, "_.-"])
def test_a_host_is_taken_byte_for_byte(name: str) -> None:
    assert is_host(name)
    assert host_subject("shipper", 4, name) == "shipper.p4." + name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", ".a", "a.", "a b", "a/b", "../../x", "a\n", "a*", ">", "ä", "a\0", "a" * 254, "٣"]
)
def test_what_is_no_host_is_refused(name: str) -> None:
    assert not is_host(name)


@pytest.mark.parametrize(
    ("prefix", "good"),
    [
        ("shipper", True),
        ("logs.prod", True),
        ("", False),
        ("a..b", False),
        ("a.*", False),
        (">", False),
        ("a b", False),
        ("a\n", False),
        ("\u65e5\u5fd7", True),
        ("a\udcff", False),
        ("a" * 1024, True),
        ("\u00e4" * 513, False),
    ],
)
def test_a_prefix_is_made_of_plain_tokens(prefix: str, good: bool) -> None:
    assert is_subject_prefix(prefix) is good
