# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.broker_accounts import FilterModule

broker_accounts = FilterModule().filters()["broker_accounts"]
USER = {"name": "web1", "account": "SHIPPER_PRODUCERS", "password": "word", "publish": ["a"], "subscribe": ["b"]}


def test_a_user_is_in_its_account():
    text = broker_accounts([USER], ["shipper"])
    assert '{"user": "web1", "password": "word", "permissions": {"publish": ["a"], "subscribe": ["b"]}}' in text
    assert text.index("SHIPPER_PRODUCERS {") < text.index('"user": "web1"')
    assert "no_auth_user" not in text


def test_without_users_everybody_may_do_everything():
    assert "no_auth_user" in broker_accounts([], ["shipper"])


def test_what_a_user_lacks_is_named():
    with pytest.raises(AnsibleFilterError, match="a user lacks 'account'"):
        broker_accounts([{"name": "web1"}], ["shipper"])
