# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.envfile import EnvFileError, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A=b\n", "b"),
        ("  A = b c  \n", "b c"),
        ("A=", ""),
        ("A='b  c '", "b  c "),
        ("A='\\n'", "\\n"),
        ('A="a\\"b\\\\c\\$d\\`e\\f"', 'a"b\\c$d`e\\f'),
        ("A=a\\ b\\\\", "a b\\"),
        ("A=a\\\nb", "ab"),
        ('A="a\\\nb"', "ab"),
        ('A="a\nb"', "a\nb"),
        ('A="a" "b"', "ab"),
        ("A=$HOME ${x} `y` %d # no comment", "$HOME ${x} `y` %d # no comment"),
        ("# A=x\n; A=y\nA=z", "z"),
        ("A=x\nA=y", "y"),
        ("A=it's", "it's"),
        ("A=x\r\n", "x"),
        # A carriage return ends a line too, but in quotes.
        ("A=a\\\r\nB=b", "a"),
        ("A=a\rB=b\n", "a"),
        ('A="a\rb\\\rc"', "a\rb\\\rc"),
        # Blanks at the end go, but before a backslash.
        ("A=a \t\n", "a"),
        ("A='a' \n", "a"),
        ("A=a\\ \n", "a "),
        ("A=a \\\n  \n", "a "),
        ("A=a \\", "a "),
    ],
)
def test_a_value_is_what_systemd_would_read(text: str, value: str) -> None:
    assert parse(text)["A"] == value


@pytest.mark.parametrize("text", ["A=10\\", "B=x\nA=10\\"])
def test_a_backslash_at_the_very_end_loses_nothing(text: str) -> None:
    assert parse(text)["A"] == "10"


@pytest.mark.parametrize("text", ["A", "A b=c", "1=2", "A='x", 'A="x\n\n', "=x", "A=x\0y", "# a\\\nA=x"])
def test_what_is_no_assignment_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(EnvFileError, match="line 2"):
        parse("X=1\n" + text)


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_a_quoted_value_survives(value: str) -> None:
    quoted = "".join("\\" + char if char in '"\\$`' else char for char in value)
    assert parse('A="%s"\n' % quoted) == {"A": value}
