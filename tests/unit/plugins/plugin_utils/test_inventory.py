# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory


class HostVars(dict):
    """As Ansible has them: raw_get gives variables as they are written, and items are templated, at some cost."""

    def __init__(self, raw):
        super().__init__({"web1": {name: "templated %s" % name for name in raw}})
        self.variables = raw

    def raw_get(self, host):
        return self.variables


def values(**raw):
    return Inventory(HostVars(raw)).values("web1", list(raw))


def test_only_what_is_a_template_is_templated():
    assert values(a="x", b=5, c=None, d=[1], e=True, f="{{ x | upper }}", g=["{{ x }}"]) == {
        "a": "x",
        "b": 5,
        "c": None,
        "d": [1],
        "e": True,
        "f": "templated f",
        "g": "templated g",
    }


def test_what_names_another_variable_is_that_one():
    assert values(a="{{ b }}", b="{{c}}", c=7)["a"] == 7
    assert values(a="{{ nowhere }}")["a"] == "templated a"
    assert values(a="{{ b }}", b="{{ a }}")["a"] == "templated a"
    assert values(a="{{ b }}", b="x{{ c }}", c="y")["a"] == "templated a"


class Vaulted:
    """A value that is decrypted whenever it is looked at, as before ansible-core 2.19."""

    looked_at = 0

    def __str__(self):
        self.looked_at += 1
        return "secret"


def test_what_is_in_a_vault_is_decrypted_once():
    secret = Vaulted()
    reader = Inventory(HostVars({"a": secret, "b": "{{ a }}"}))
    for _turn in range(3):
        assert reader.values("web1", ["a", "b"]) == {"a": "secret", "b": "secret"}
    assert secret.looked_at == 1


def test_a_plain_dictionary_will_do():
    assert Inventory({"web1": {"a": 1}}).values("web1", ["a", "b"]) == {"a": 1}
