# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.identity_password import FilterModule, identity_password

SECRET = "s" * 32


def test_a_password_is_43_characters_and_always_the_same():
    assert identity_password(SECRET, "web1") == "6MpE8gUoQAlwYZlA5jPzkNq0O1zzNOpkZ8AiA8XPK-o"
    assert identity_password(SECRET, "web1", 1) == identity_password(SECRET, "web1", "1")


def test_another_generation_identity_or_secret_gives_another_password():
    passwords = {
        identity_password(SECRET, "web1"),
        identity_password(SECRET, "web1", 2),
        identity_password(SECRET, "web2"),
        identity_password("t" * 32, "web1"),
    }
    assert len(passwords) == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((None, "web1"), "identity_password: the secret is no text: use a string from a vault"),
        (("secret-word", "web1"), "identity_password: the secret is shorter than 32 characters: use a longer one"),
        ((SECRET, 5), "identity_password: 5 is not the name of an identity: use a string"),
        ((SECRET, "web1", 0), "identity_password: 0 is not a generation: use a whole number, 1 or more"),
        ((SECRET, "web1", True), "identity_password: True is not a generation: use a whole number, 1 or more"),
    ],
)
def test_what_cannot_work_is_named_but_for_the_secret(arguments, text):
    with pytest.raises(AnsibleFilterError) as error:
        identity_password(*arguments)
    assert str(error.value) == text


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"identity_password": identity_password}
