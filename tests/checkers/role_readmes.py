# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes roles/*/README.md from the roles' argument specifications.

.venv/bin/python tests/checkers/role_readmes.py            writes them
.venv/bin/python tests/checkers/role_readmes.py --check    only says which are not as they would be written
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
NOTICE = """<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Made by `make docs` from meta/argument_specs.yml. -->
"""
# Ansible's markup: what stands in these is code, in those it is text.
_CODE = re.compile(r"\b[CVOE]\(((?:[^()\\]|\\.|\([^()]*\))*)\)")
_TEXT = re.compile(r"\b[BIU]\(([^()]*)\)")
_LINK = re.compile(r"\bL\(([^,()]+), *([^()]+)\)")
_PLUGIN = re.compile(r"\b(?:M|P)\(([\w.]+)(?:#\w+)?\)")


def markdown(text: str) -> str:
    """A description's paragraph in Markdown."""
    text = _CODE.sub(lambda match: "`%s`" % re.sub(r"\\(.)", r"\1", match[1]), " ".join(text.split()))
    text = _LINK.sub(r"[\1](\2)", _TEXT.sub(r"\1", text))
    return _PLUGIN.sub(r"`\1`", text)


def paragraphs(description: str | list[str]) -> list[str]:
    return [markdown(text) for text in ([description] if isinstance(description, str) else description)]


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def shown(value: Any) -> str:
    """A default, as one would write it into YAML."""
    return "`%s`" % (value if isinstance(value, str) and value else json.dumps(value))


def rows(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A row for each option, required ones first, and below it one for each of its own."""
    for name, option in sorted(options.items(), key=lambda item: not item[1].get("required")):
        kind = option.get("type", "str")
        if "elements" in option:
            kind += " of " + option["elements"]
        meaning = " ".join(paragraphs(option["description"]))
        if "choices" in option:
            meaning += " One of %s." % ", ".join("`%s`" % choice for choice in option["choices"])
        default = "**required**" if option.get("required") else shown(option["default"]) if "default" in option else ""
        yield "| `%s%s` | %s | %s | %s |" % (prefix, name, cell(meaning), kind, cell(default))
        yield from rows(option.get("options", {}), "%s%s." % (prefix, name))


def readme(role: str) -> str:
    """The whole file."""
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["argument_specs"]
    parts = [NOTICE, "# Role logfleet.shipper.%s\n" % role]
    for name, entry in sorted(entries.items(), key=lambda item: item[0] != "main"):
        if name != "main":
            parts.append("## Entry point %s\n" % name)
        parts.append("%s.\n" % entry["short_description"].rstrip("."))
        parts += [text + "\n" for text in paragraphs(entry.get("description", []))]
        if entry.get("options"):
            parts.append("| variable | meaning | type | default |\n|---|---|---|---|")
            parts.append("\n".join(rows(entry["options"])) + "\n")
    parts.append(
        "`ansible-doc --type role logfleet.shipper.%s` shows the same. How the roles work together is told in the\n"
        "[README](../../README.md) of the collection and in the [guide](../../docs/guide.md).\n" % role
    )
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    stale = []
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = path.parents[1].name
        target, text = path.parents[1] / "README.md", readme(role)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append("roles/%s/README.md" % role)
            if arguments != ["--check"]:
                target.write_text(text, encoding="utf-8")
    if arguments == ["--check"]:
        for name in stale:
            print("%s is not what its argument specification says: run make docs" % name)
        return 1 if stale else 0
    print("".join("wrote %s\n" % name for name in stale), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
