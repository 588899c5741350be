# SPDX-License-Identifier: GPL-3.0-or-later
"""The module layout, run by Ansible on this machine."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from conftest import Fleet, Run


def layout(fleet: Fleet, entries: list[dict[str, Any]], *arguments: str) -> Run:
    given = json.dumps({"entries": entries})
    return fleet.ansible("ansible", "localhost", "-m", "logfleet.shipper.layout", "-a", given, *arguments)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_entries_are_put_in_place_once_and_predicted_before(fleet: Fleet, tmp_path: Path) -> None:
    """Check mode changes nothing, a second run neither; a secret is shown by neither."""
    root = tmp_path / "root"
    entries = [
        {"path": str(root / "a/b"), "state": "directory", "mode": "0750"},
        {"path": str(root / "a/b/x-1.env"), "state": "file", "secret": "hidden-word\n", "mode": "0640"},
        {"path": str(root / "a/b/plain"), "state": "file", "content": "shown-word\n", "validate": ["/bin/cat"]},
        {"path": str(root / "a/link"), "state": "link", "to": "nowhere"},
        {"path": str(root / "a/b/x-*.env"), "state": "absent", "keep": [str(root / "a/b/x-1.env")]},
    ]
    checked = layout(fleet, entries, "--check", "--diff", "-vvv")
    assert (checked.code, root.exists()) == (0, False), checked.output
    assert "CHANGED" in checked.output

    before = os.umask(0o077)
    try:
        done = layout(fleet, entries, "--diff", "-vvv")
    finally:
        os.umask(before)
    assert done.code == 0, done.output
    for run in (checked, done):
        assert "hidden-word" not in run.output
        assert "shown-word" in run.output
    assert [mode(root / name) for name in (".", "a", "a/b", "a/b/x-1.env")] == [0o755, 0o755, 0o750, 0o640]
    assert (root / "a/b/x-1.env").read_text() == "hidden-word\n"
    assert os.readlink(root / "a/link") == "nowhere"

    (root / "a/b/x-2.env").touch()
    again = layout(fleet, entries)
    assert '"changed_paths": [\n        "%s"\n    ]' % (root / "a/b/x-2.env") in again.output
    assert sorted(path.name for path in (root / "a/b").iterdir()) == ["plain", "x-1.env"]
    assert "CHANGED" not in layout(fleet, entries).output

    # What has lost its mode gets it back, and a link is switched.
    (root / "a/b").chmod(0o777)
    (root / "a/link").unlink()
    (root / "a/link").symlink_to("elsewhere")
    assert layout(fleet, entries).code == 0
    assert mode(root / "a/b") == 0o750
    assert os.readlink(root / "a/link") == "nowhere"


def test_a_switched_link_leaves_one_to_where_it_pointed_and_old_files_go(fleet: Fleet, tmp_path: Path) -> None:
    """The newest stay, and what is linked; predicted before; a link that is not switched changes nothing. Whatever the
    folder is called."""
    tmp_path /= "a[b]*"
    tmp_path.mkdir()
    for age, name in enumerate(("0.5", "0.4", "0.3", "0.2", "0.1")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    (tmp_path / "current").symlink_to(tmp_path / "0.1")
    link = {"path": str(tmp_path / "current"), "state": "link", "to": str(tmp_path / "0.5")}
    entries = [
        {**link, "previous": str(tmp_path / "previous")},
        {"path": str(tmp_path / "[0-9]*"), "state": "absent", "keep": [str(tmp_path / "0.5")], "keep_newest": 1},
    ]
    checked = layout(fleet, entries, "--check")
    assert checked.code == 0
    assert not (tmp_path / "previous").is_symlink()
    done = layout(fleet, entries)
    assert done.code == 0
    assert os.readlink(tmp_path / "previous") == str(tmp_path / "0.1")
    assert sorted(path.name for path in tmp_path.glob("0.*")) == ["0.1", "0.4", "0.5"]
    for name in ("0.2", "0.3"):
        assert str(tmp_path / name) in checked.output and str(tmp_path / name) in done.output
    assert "CHANGED" not in layout(fleet, entries).output


def test_folders_go_when_nothing_is_left_in_them(fleet: Fleet, tmp_path: Path) -> None:
    """As check mode says, and a link to nowhere goes as well."""
    (tmp_path / "empty/inner").mkdir(parents=True)
    (tmp_path / "empty/inner/file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "nowhere").symlink_to("missing")
    paths = [tmp_path / name for name in ("empty/inner/*", "empty/inner", "empty", "full", "nowhere")]
    entries = [{"path": str(path), "state": "absent"} for path in paths]
    checked = layout(fleet, entries, "--check")
    assert (tmp_path / "empty/inner/file").exists()
    done = layout(fleet, entries)
    for run in (checked, done):
        assert run.code == 0
        assert '"%s"' % (tmp_path / "empty") in run.output
        assert '"%s"' % (tmp_path / "nowhere") in run.output
    assert not (tmp_path / "empty").exists()
    assert (tmp_path / "full/file").exists()
    assert "CHANGED" not in layout(fleet, entries).output


def test_what_cannot_be_put_in_place_leaves_what_is_there(fleet: Fleet, tmp_path: Path) -> None:
    """A content that its program refuses, a file where a link is to be, and a file where a folder is to be."""
    (tmp_path / "settings").write_text("good\n")
    validated = {"path": str(tmp_path / "settings"), "state": "file", "content": "bad\n"}
    run = layout(
        fleet, [{**validated, "validate": ["/bin/sh", "-c", 'read line < "$0"; echo "no: $line" >&2; exit 2']}]
    )
    assert run.code != 0
    assert "settings was left as it is, for what it was to hold cannot work: no: bad" in run.message
    for entry in ({"state": "link", "to": "x"}, {"state": "directory"}):
        run = layout(fleet, [{"path": str(tmp_path / "settings"), **entry}])
        assert run.code != 0
        assert "move it away" in run.message
    run = layout(fleet, [{"path": str(tmp_path / "none/settings"), "state": "file", "content": ""}])
    assert run.code != 0
    assert "none/settings: No such file or directory" in run.message
    assert (tmp_path / "settings").read_text() == "good\n"
    assert not list(tmp_path.glob(".shipper-*"))


def test_nothing_goes_live_before_all_can(fleet: Fleet, tmp_path: Path) -> None:
    """What comes before an entry that cannot be put in place is left as it is, too."""
    tmp_path /= "root"
    tmp_path.mkdir()
    (tmp_path / "settings").write_text("old\n")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "surplus").touch()
    first = [
        {"path": str(tmp_path / "settings"), "state": "file", "content": "new\n"},
        {"path": str(tmp_path / "link"), "state": "link", "to": "new"},
        {"path": str(tmp_path / "surplus"), "state": "absent"},
    ]
    refused = {"path": str(tmp_path / "more"), "state": "file", "content": "", "validate": ["/bin/false"]}
    for last in (refused, {"path": str(tmp_path / "settings"), "state": "link", "to": "x"}):
        run = layout(fleet, [*first, last])
        assert run.code != 0
        assert (tmp_path / "settings").read_text() == "old\n"
        assert os.readlink(tmp_path / "link") == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "settings", "surplus"]


def test_what_was_not_read_since_it_was_changed_is_told_until_it_is(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    entry = {"path": str(path), "state": "file", "content": "new\n"}
    unread = '"unread_paths": [\n        "%s"\n    ]' % path
    assert unread in layout(fleet, [{**entry, "read_at": ""}]).output
    for changed, told in ((0, False), (-60, False), (0.5, True)):
        at = path.stat().st_ctime - changed
        stamp = "%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)), at % 1 * 1e9)
        run = layout(fleet, [{**entry, "read_at": stamp}])
        assert "CHANGED" not in run.output
        assert (unread in run.output) == told, run.output
    # When it was read is not known; and nobody reads it.
    for more in ({"read_at": ""}, {}):
        assert unread not in layout(fleet, [{**entry, **more}]).output
    # A service that does not run has read nothing.
    run = layout(fleet, [{**entry, "read_by": ["shipper-none.service"]}])
    assert (unread in run.output) == (shutil.which("systemctl") is not None), run.output


def test_files_that_go_together_are_validated_together(fleet: Fleet, tmp_path: Path) -> None:
    """What validates the last one finds the others beside it, as they are to be; where it refuses, none goes live."""
    part, whole = tmp_path / "part", tmp_path / "whole"
    check = ["/bin/sh", "-c", 'grep -q good "$(dirname "$0")/part" || { echo "no good part" >&2; exit 1; }']

    def entries(text: str) -> list[dict[str, Any]]:
        return [
            {"path": str(part), "state": "file", "secret": text, "mode": "0600", "together": True},
            {"path": str(whole), "state": "file", "content": "include part\n", "validate": check},
        ]

    assert layout(fleet, entries("good\n")).code == 0
    refused = layout(fleet, entries("bad\n"))
    assert refused.code != 0
    assert "whole was left as it is, for what it was to hold cannot work: no good part" in refused.message
    assert (part.read_text(), mode(part)) == ("good\n", 0o600)
    changed = layout(fleet, entries("good too\n"))
    assert '"changed_paths": [\n        "%s"\n    ]' % part in changed.output
    assert part.read_text() == "good too\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
