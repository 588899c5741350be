# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-galaxy packs and installs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import BIN, ROOT, Fleet

from shipper_runtime.bundle import NATS_PY_OLDEST

# Every file is of one of these kinds, and of each kind there is one at least.
KINDS = (
    r"(CHANGELOG|README)\.md",
    r"LICENSE",
    r"(FILES|MANIFEST)\.json",
    r"bindep\.txt",
    r"requirements\.txt",
    r"changelogs/(changelog|config)\.yaml",
    r"changelogs/fragments/[\w.-]+\.yml",
    r"docs/\w+\.(md|svg)",
    r"docs/docsite/\w[\w-]+\.(py|yml)",
    r"docs/docsite/rst/\w+\.rst",
    r"docs/performance/[\w-]+\.(json|svg)",
    r"docs/monitoring/\w+\.(json|yml)",
    r"meta/[\w-]+\.yml",
    r"playbooks/[\w-]+\.yml",
    r"plugins/(action|doc_fragments|filter|module_utils|modules|plugin_utils)/\w+\.py",
    r"roles/\w+/(defaults|handlers|meta|tasks|vars)/[\w.-]+\.yml",
    r"roles/\w+/templates/[\w.@-]+\.j2",
    r"roles/\w+/README\.md",
    r"shipper_runtime/\w+\.py",
)
# Written at a release only.
NOT_YET = {"CHANGELOG.md"}
NEEDED = {
    "bindep.txt",
    "docs/guide.md",
    "docs/metrics.md",
    "docs/security.md",
    "docs/monitoring/alerts.yml",
    "docs/monitoring/dashboard.json",
    "docs/monitoring/scrape.yml",
    "LICENSE",
    "meta/execution-environment.yml",
    "meta/runtime.yml",
    "playbooks/site.yml",
    "README.md",
    "requirements.txt",
    "shipper_runtime/bundle.py",
}
# What developers and their tools leave behind.
LEFT = (
    ".ansible/x",
    ".cache/home/x",
    ".hypothesis/x",
    ".mypy_cache/x.json",
    ".pytest_cache/x",
    ".ruff_cache/x",
    ".venv/bin/python",
    ".venvs/py3.9/bin/python",
    "changelogs/.plugin-cache.yaml",
    "dist/logfleet-shipper-0.0.1.tar.gz",
    "docs/html/index.html",
    "logfleet-shipper-0.0.1.tar.gz",
    "molecule/default/molecule.yml",
    "roles/producer/tasks/__pycache__/x.pyc",
    "shipper_runtime/__pycache__/cli.cpython-311.pyc",
    "tests/output/junit.xml",
)


@pytest.fixture(scope="module")
def listed() -> set[str]:
    """The files of the repository, those that are not committed yet included."""
    output = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    ).stdout
    return {name for name in output.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, collections: Path) -> Iterator[Fleet]:
    yield Fleet(tmp_path_factory.mktemp("tarball"), collections)


@pytest.fixture(scope="module")
def tarball(place: Fleet, listed: set[str]) -> Path:
    """The collection, built in a tree in which somebody has worked."""
    tree = place.folder / "tree"
    for name in listed:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    for name in LEFT:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    built = place.ansible("ansible-galaxy", "collection", "build", str(tree))
    assert built.code == 0, built.output
    (path,) = place.folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def names(tarball: Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def installed(place: Fleet, tarball: Path) -> Path:
    """A folder in which there is this collection and no other, installed without a network."""
    target = place.folder / "installed"
    arguments = ("--offline", "--force", "--collections-path", str(target), str(tarball))
    done = place.ansible("ansible-galaxy", "collection", "install", *arguments)
    assert done.code == 0, done.output
    return target


def ansible(installed: Path, *command: str) -> str:
    """What a program of Ansible prints that sees nothing but that folder."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=installed,
        env={
            "ANSIBLE_COLLECTIONS_PATH": str(installed),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "0",
            "ANSIBLE_NOCOLOR": "1",
            "HOME": str(installed.parent),
            "PATH": str(BIN),
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_named_after_its_version(tarball: Path) -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    assert tarball.name == "logfleet-shipper-%s.tar.gz" % galaxy["version"]


def test_there_is_nothing_in_it_but_what_users_need(names: set[str], listed: set[str]) -> None:
    """Nothing that developers leave behind, no tests, no tools."""
    patterns = [re.compile(kind) for kind in KINDS]
    assert not sorted(name for name in names if not any(pattern.fullmatch(name) for pattern in patterns))
    assert not [name for name in names if name.startswith("molecule/") or name in LEFT]
    unused = [pattern.pattern for pattern in patterns if not any(pattern.fullmatch(name) for name in names | listed)]
    assert not unused


def test_everything_in_it_that_users_need(names: set[str], listed: set[str]) -> None:
    assert names >= NEEDED
    for folder in ("docs", "meta", "playbooks", "plugins", "roles", "shipper_runtime"):
        assert {name for name in listed if name.startswith(folder + "/")} <= names
    for role in {name.split("/")[1] for name in names if name.startswith("roles/")}:
        assert "roles/%s/README.md" % role in names


def test_links_between_its_pages_lead_somewhere(tarball: Path, names: set[str]) -> None:
    """A page is read where the collection is installed, too. What is in the repository only has no link."""
    with tarfile.open(tarball) as archive:
        for name in sorted(name for name in names if name.endswith(".md") and name not in NOT_YET):
            member = archive.extractfile(name)
            assert member is not None
            text = member.read().decode()
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
                target = (Path("/") / name).parent.joinpath(link)
                parts: list[str] = []
                for part in target.parts[1:]:
                    if part == "..":
                        parts.pop()
                    else:
                        parts.append(part)
                assert "/".join(parts) in names, "%s links %s" % (name, link)


def test_every_playbook_is_found_once_it_is_installed(installed: Path, names: set[str]) -> None:
    playbooks = sorted(Path(name).stem for name in names if name.startswith("playbooks/"))
    assert "site" in playbooks
    inventory = ("--inventory", "localhost,")
    shown = ansible(
        installed, "ansible-playbook", "--syntax-check", *inventory, *("logfleet.shipper." + name for name in playbooks)
    )
    assert all("playbook: " in line for line in shown.split("\n") if line.strip())
    assert (installed / "ansible_collections/logfleet/shipper/shipper_runtime/cli.py").exists()


@pytest.mark.parametrize("kind", ["filter", "module", "role"])
def test_everything_is_documented_where_it_is_installed(installed: Path, names: set[str], kind: str) -> None:
    """ansible-doc lists and shows each filter, module and role."""
    folder = {"filter": "plugins/filter/", "module": "plugins/modules/", "role": "roles/"}[kind]
    found = {name[len(folder) :].split("/")[0] for name in names if name.startswith(folder)}
    there = {"logfleet.shipper." + name.removesuffix(".py") for name in found}
    doc = ("ansible-doc", "--type", kind, "--json")
    listing = json.loads(ansible(installed, *doc, "--list", "logfleet.shipper"))
    assert set(listing) == there
    if kind != "role":
        assert all(listing.values()), listing
    documents = json.loads(ansible(installed, *doc, *sorted(there)))
    assert set(documents) == there
    for name, document in documents.items():
        if kind == "role":
            assert all(entry["short_description"] for entry in document["entry_points"].values()), name
        else:
            assert document["doc"]["short_description"], name
            assert document["examples"], name
            assert document["return"], name


def test_an_execution_environment_gets_what_the_controller_needs() -> None:
    """The files that are named are there, and ask for the NATS client that the bundle is built with."""
    environment = yaml.safe_load((ROOT / "meta" / "execution-environment.yml").read_text(encoding="utf-8"))
    named = environment["dependencies"]
    assert set(named) == {"python", "system"}
    lines = (ROOT / named["python"]).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["nats-py>=%d.%d" % NATS_PY_OLDEST]
    system = (ROOT / named["system"]).read_text(encoding="utf-8").splitlines()
    assert all(line.startswith(("#", "openssl ")) for line in system)
