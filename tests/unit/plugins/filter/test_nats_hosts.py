# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.nats_hosts import FilterModule

nats_hosts = FilterModule().filters()["nats_hosts"]


def test_each_host_is_there_once_and_no_password():
    url = "tls://user:word@a.example.net:4222,b,[fd00::1]:4222,nats://a.example.net:4333"
    assert nats_hosts(url) == ["a.example.net", "b", "fd00::1"]


def test_what_is_no_url_is_named_without_its_password():
    with pytest.raises(AnsibleFilterError, match="shipper_nats_url=") as refused:
        nats_hosts("http://user:word@a")
    assert "word" not in str(refused.value)
    with pytest.raises(AnsibleFilterError, match="is no text"):
        nats_hosts(["a"])
