# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.environment_file import FilterModule, environment_file
from ansible_collections.logfleet.shipper.shipper_runtime import envfile


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "two words",
        ' "quoted" ',
        "it's",
        "back\\slash\\",
        "$HOME ${HOME} `id` $$",
        "100 %n %%",
        "# no comment",
        "; none either",
        "a\tb",
        "umlaut \u00e4 \u20ac \U0001f600",
        "=",
        'nats://user:p%40ss"$\\@host:4222',
    ],
)
def test_the_program_reads_the_value_that_was_written(value):
    text = environment_file({"A": value, "B": "next"})
    assert envfile.parse(text) == {"A": value, "B": "next"}
    assert len(text.splitlines()) == 2


def test_numbers_are_written_and_what_is_unset_is_left_out():
    assert environment_file({"A": 0, "B": None, "C": "", "D": "x"}) == 'A="0"\nD="x"\n'


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\0", "\x1b", "\x7f", "\udc80"])
def test_what_does_not_go_on_a_line_is_refused_and_not_shown(value):
    with pytest.raises(AnsibleFilterError) as error:
        environment_file({"SECRET": value})
    assert str(error.value) == ("environment_file: SECRET holds a line break or another control character: take it out")


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}])
def test_only_text_and_whole_numbers_are_values(value):
    with pytest.raises(AnsibleFilterError) as error:
        environment_file({"A": value})
    assert str(error.value) == "environment_file: A is neither text nor a whole number: use one of them"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", 1])
def test_only_names_are_names(name):
    with pytest.raises(AnsibleFilterError) as error:
        environment_file({name: "x"})
    assert str(error.value) == "environment_file: %r is not a variable's name: use letters, digits and _" % (name,)


def test_only_a_dictionary_has_variables():
    with pytest.raises(AnsibleFilterError) as error:
        environment_file(["A=1"])
    assert str(error.value) == "environment_file: ['A=1'] is not a dictionary: use names and values"


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"environment_file": environment_file}
