# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the docsite: plugins and roles as antsibull-docs shows them, and the pages of docs/ that GitHub shows.

    .venv/bin/python tests/checkers/docsite.py docs/html

What it is made from lies in .cache/docsite. A warning of antsibull-docs or Sphinx, such as a link that leads nowhere,
is an error. No network is used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from check import CACHE, copy_tree, variables
from environments import MAIN, ROOT

BUILD = CACHE / "docsite"
COLLECTIONS = BUILD / "collections"
SOURCES = BUILD / "rst"
# What who runs it reads; the others follow.
FIRST = ("readme.md", "guide.md", "security.md", "metrics.md")
# README.md is at the top for GitHub, and among the other pages here.
_TO_README = re.compile(r"\]\(\.\./README\.md")
_FROM_README = re.compile(r"\]\(docs/(\w+\.md)")
# A page links a file of the repository by its place in it.
_FILE = re.compile(r"\]\(([\w./-]+)(?<!\.md)\)")
_FILES_AT = "https://github.com/logfleet/shipper/blob/main/"


def pages() -> dict[str, str]:
    """The Markdown pages by their names in the docsite, their links made to fit there."""
    found = {}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        text = _FROM_README.sub(r"](\1", _TO_README.sub("](readme.md", text))
        found[path.name.lower()] = _FILE.sub(lambda match, place=path.parent: "](%s)" % _linked(place, match[1]), text)
    return found


def _linked(folder: Path, link: str) -> str:
    place = (folder / link).resolve()
    if not place.exists():
        raise SystemExit("%s links %s, which is not there" % (folder, link))
    return _FILES_AT + place.relative_to(ROOT).as_posix()


def _add_pages(folder: Path) -> None:
    """Beside pages.rst, which is all that antsibull-docs knows of them, and gets their list."""
    found = pages()
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")
    order = [*FIRST, *(name for name in sorted(found) if name not in FIRST)]
    with (folder / "pages.rst").open("a", encoding="utf-8") as file:
        file.write("\n.. toctree::\n    :maxdepth: 2\n\n%s" % "".join("    %s\n" % Path(name).stem for name in order))


def _expected() -> set[str]:
    """A page for everything: plugins, roles, and what is in docs/."""
    kinds = {"filter": "plugins/filter/*.py", "module": "plugins/modules/*.py", "role": "roles/*"}
    found = {"%s_%s.html" % (path.stem, kind) for kind, pattern in kinds.items() for path in ROOT.glob(pattern)}
    return found | {"docsite/%s.html" % Path(name).stem for name in pages()}


def build(target: Path) -> int:
    """Build into target, which is made anew; the exit code."""
    shutil.rmtree(BUILD, ignore_errors=True)
    copy_tree(COLLECTIONS / "ansible_collections" / "logfleet" / "shipper")
    for folder in (SOURCES, BUILD / "home"):
        folder.mkdir(mode=0o755)
    environment = variables(ROOT / MAIN.folder)
    environment.update(ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS), HOME=str(BUILD / "home"))
    programs = ROOT / MAIN.folder / "bin"
    documents = [
        *(str(programs / "antsibull-docs"), "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"),
        *("--no-add-antsibull-docs-version", "--dest-dir", str(SOURCES), "logfleet.shipper"),
    ]
    sphinx = [
        *(str(programs / "sphinx-build"), "-M", "html", str(SOURCES), str(BUILD / "build")),
        *("-c", str(ROOT / "docs" / "docsite"), "-W", "--keep-going", "-q"),
    ]
    os.umask(0o022)
    for command in (documents, sphinx):
        code = subprocess.call(command, cwd=BUILD, env=environment, stdin=subprocess.DEVNULL)
        if code != 0:
            return code
        if command is documents:
            _add_pages(SOURCES / "docsite")
    html = BUILD / "build" / "html"
    missing = sorted(name for name in _expected() if not (html / name).exists())
    if missing:
        print("The docsite lacks %s" % ", ".join(missing), file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(html, target)
    print("The docsite is in %s" % target)
    return 0


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]).absolute()))
