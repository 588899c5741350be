# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-galaxy packs and installs."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from conftest import BIN, ROOT, Fleet

TOP = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
    "shipper_runtime",
}


def test_the_tarball_is_complete_and_clean_and_installs_without_a_network(fleet: Fleet) -> None:
    """What users need, nothing that developers leave behind, and the playbook is found once it is installed."""
    tree = fleet.folder / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    # What developers leave behind.
    for left in (".venv/bin/python", ".cache/home/x", "tests/output/junit.xml", "changelogs/.plugin-cache.yaml"):
        (tree / left).parent.mkdir(parents=True, exist_ok=True)
        (tree / left).touch()
    (tree / "shipper_runtime" / "__pycache__").mkdir()
    (tree / "shipper_runtime" / "__pycache__" / "cli.cpython-311.pyc").touch()
    built = fleet.ansible("ansible-galaxy", "collection", "build", str(tree))
    assert built.code == 0, built.output
    (tarball,) = fleet.folder.glob("*.tar.gz")
    assert tarball.name == "logfleet-shipper-0.2.0.tar.gz"
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
    assert {name.split("/")[0] for name in names} <= TOP
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or ".plugin-cache" in name]
    for name in ("LICENSE", "README.md", "meta/runtime.yml", "playbooks/site.yml", "shipper_runtime/bundle.py"):
        assert name in names
    for folder in ("roles", "plugins"):
        assert {name for name in listed.stdout.splitlines() if name.startswith(folder + "/")} <= names

    target = fleet.folder / "installed"
    arguments = ("--offline", "--force", "--collections-path", str(target), str(tarball))
    installed = fleet.ansible("ansible-galaxy", "collection", "install", *arguments)
    assert installed.code == 0, installed.output
    shown = subprocess.run(
        [str(BIN / "ansible-playbook"), "--syntax-check", "--inventory", "localhost,", "logfleet.shipper.site"],
        env={"ANSIBLE_COLLECTIONS_PATH": str(target), "PATH": str(BIN), "HOME": str(fleet.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert shown.returncode == 0, shown.stdout
    assert Path(target, "ansible_collections/logfleet/shipper/shipper_runtime/cli.py").exists()
