# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles document is what they do: specifications and defaults do not drift apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from shipper_runtime.fleet import VARIABLES

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def load(role: str, file: str) -> Any:
    return yaml.safe_load((ROLES / role / file).read_text(encoding="utf-8"))


def options(role: str, entry: str = "main") -> dict[str, Any]:
    return dict(load(role, "meta/argument_specs.yml")["argument_specs"][entry]["options"])


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_of_a_role_has_its_prefix(role: str) -> None:
    """And every other one says that it is nobody's business."""
    assert all(name.startswith(role + "_") for name in options(role))
    assert all(name.startswith(role + "_") for name in load(role, "defaults/main.yml"))
    assert all(name.startswith("__%s_" % role) for name in load(role, "vars/main.yml"))


@pytest.mark.parametrize("role", NAMES)
def test_what_is_optional_has_a_default_and_what_is_required_has_none(role: str) -> None:
    """The keys of both agree."""
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert optional == set(load(role, "defaults/main.yml"))


@pytest.mark.parametrize("role", NAMES)
def test_documented_defaults_are_the_ones_in_force(role: str) -> None:
    """A default that is computed and is no text has no place in a specification: its description has it. Nor has one
    that may hold a password, for Ansible shows it where something else is wrong."""
    specified = options(role)
    for name, default in load(role, "defaults/main.yml").items():
        computed = isinstance(default, str) and "{{" in default
        if computed and (specified[name]["type"] != "str" or name.endswith("_nats_url")):
            assert "default" not in specified[name], name
        else:
            assert specified[name]["default"] == default, name
            assert type(specified[name]["default"]) is type(default), name


@pytest.mark.parametrize("role", NAMES)
def test_every_entry_point_is_specified(role: str) -> None:
    """An entry point is a file of tasks that another role or a playbook may name."""
    entries = set(load(role, "meta/argument_specs.yml")["argument_specs"])
    assert all((ROLES / role / "tasks" / (entry + ".yml")).exists() for entry in entries)
    assert "main" in entries


def test_the_variables_of_the_fleet_are_documented() -> None:
    """And what the preflight looks at is among what is documented."""
    fleet = {name for name in options("runtime", "preflight") if name.startswith("shipper_")}
    known = fleet | set(options("producer")) | set(options("consumer")) | set(options("broker"))
    assert set(VARIABLES) <= known
    text = "".join(path.read_text(encoding="utf-8") for path in ROLES.rglob("defaults/main.yml"))
    assert {word for word in _words(text) if word.startswith("shipper_")} <= fleet


def _words(text: str) -> list[str]:
    return "".join(char if char.isalnum() or char == "_" else " " for char in text).split()


def test_the_variables_that_playbooks_and_tasks_read_are_documented() -> None:
    """So that one that is misspelt is named, whoever reads it."""
    documented = {name for role in NAMES for entry in load(role, "meta/argument_specs.yml")["argument_specs"].values()
                  for name in entry.get("options", {})}  # fmt: skip
    files = [*ROLES.rglob("tasks/*.yml"), *ROLES.rglob("vars/main.yml"), *(ROLES.parent / "playbooks").glob("*.yml")]
    read = {word for path in files for word in _words(path.read_text(encoding="utf-8"))}
    read = {word for word in read if word.startswith(("shipper_", "broker_", "consumer_", "producer_"))}
    # Groups, filters, modules and the program's package.
    others = {"shipper_brokers", "shipper_consumers", "shipper_producers", "shipper_runtime"}
    others |= {path.stem for folder in ("filter", "modules") for path in (ROLES.parent / "plugins" / folder).glob("*")}
    assert sorted(read - others - documented) == []
