# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.nats_url import FilterModule, nats_url


@pytest.mark.parametrize(
    ("servers", "tls", "expected"),
    [
        ("nats://b1:4222", False, "nats://web1:pw@b1:4222"),
        ("b1, tls://b2:5", False, "nats://web1:pw@b1,tls://web1:pw@b2:5"),
        ("b1,nats://[::1]:4222,tls://b3", True, "tls://web1:pw@b1,tls://web1:pw@[::1]:4222,tls://web1:pw@b3"),
    ],
)
def test_user_and_password_are_in_each_url(servers, tls, expected):
    assert nats_url(servers, "web1", "pw", tls) == expected


def test_what_is_special_in_a_url_is_quoted():
    assert nats_url("b1", "a@b", "x:/,%") == "nats://a%40b:x%3A%2F%2C%25@b1"


def test_without_a_user_the_servers_stay_but_for_tls():
    assert nats_url("nats://u:p@b1,b2") == "nats://u:p@b1,b2"
    assert nats_url("nats://u:p@b1,b2", tls=True) == "tls://u:p@b1,tls://b2"


@pytest.mark.parametrize("servers", ["nats://other:word@b1", "b1,nats://token-word@b2", "b1,nats://b2@b3"])
def test_a_url_that_has_a_user_already_is_refused_without_showing_it(servers):
    with pytest.raises(AnsibleFilterError) as error:
        nats_url(servers, "web1", "pw")
    assert "holds a user or a token already" in str(error.value)
    assert "word" not in str(error.value)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize("servers", [None, 5, ["b1"], "http://b1", "b1:x", ""])
def test_what_is_no_server_is_refused(servers):
    with pytest.raises(AnsibleFilterError, match=r"^nats_url: "):
        nats_url(servers, "web1", "pw")


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"nats_url": nats_url}
