#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module layout."""

from __future__ import annotations

DOCUMENTATION = r"""
module: layout
short_description: Puts folders, links and small files in place, all at once
version_added: 0.1.0
author: The logfleet developers (@logfleet)
description:
  - Does in one step what would take a step for each folder, link and file otherwise. To start a module costs much more
    than what it does here, on 3,000 hosts and on one machine that plays eight.
  - All is looked at before the first file or link goes live, and then the entries are put in place in their order. So a
    file that cannot work leaves everything as it was, but for folders that were missing.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Files are not validated in check mode, for what validates them may not be there yet.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - Nothing of O(entries[].secret) is shown.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
options:
  entries:
    description: What is to be there.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - The path of the folder, link or file.
          - With O(entries[].state=absent) its last part may be a glob.
        type: str
        required: true
      state:
        description:
          - What is to be at O(entries[].path).
          - V(directory) makes missing parents too, with mode C(0755).
          - V(link) switches a link at once. What is there and no link is left alone, and the module fails.
          - V(file) replaces a file's content at once.
          - V(absent) removes files, links, and folders in which nothing is left.
        type: str
        choices:
          - directory
          - link
          - file
          - absent
        required: true
      to:
        description: The path that a link points to. It need not exist.
        type: str
      previous:
        description:
          - The path of a second link, which then points to where the link pointed before it was switched.
          - It is left alone where the link is not switched.
        type: str
        version_added: 0.2.0
      content:
        description: A file's content.
        type: str
      secret:
        description: A file's content where nobody may see it in Ansible's output, instead of O(entries[].content).
        type: str
      validate:
        description:
          - A command that decides about a file's content before it goes live. The path of a temporary file is appended.
          - When it fails nothing is changed, and what it printed is the message.
        type: list
        elements: str
      together:
        description:
          - Whether a file goes live together with the file behind it, whose O(entries[].validate) sees both beside each
            other, under their names, in one folder.
          - For a configuration that includes other files. They must be in the same folder.
        type: bool
        default: false
      keep:
        description: The paths that O(entries[].state=absent) leaves alone.
        type: list
        elements: str
        default: []
      keep_newest:
        description:
          - So many of the newest files that O(entries[].state=absent) would remove are left alone too.
          - Files that a link in the same folder points to are left alone then, and do not count.
        type: int
        version_added: 0.2.0
      read_by:
        description:
          - The systemd services that read a file when they start. Where one has not read it as it is now, for an
            earlier run ended before it was told, the file is among RV(unread_paths).
        type: list
        elements: str
        default: []
        version_added: 0.2.0
      read_at:
        description:
          - When a file was last read, as UTC in RFC 3339, instead of O(entries[].read_by).
          - Empty where that is not known.
        type: str
        default: ""
        version_added: 0.2.0
      mode:
        description: The mode of a folder or file, such as V(0750).
        type: str
      owner:
        description: The owner of a folder or file.
        type: str
      group:
        description: The group of a folder or file.
        type: str
"""

EXAMPLES = r"""
- name: Put a folder, a link and a file in place
  logfleet.shipper.layout:
    entries:
      - path: /etc/shipper
        state: directory
        mode: "0750"
      - path: /opt/shipper/current
        state: link
        to: /opt/shipper/0.2.0
        previous: /opt/shipper/previous
      - path: /etc/shipper/producer.env
        state: file
        content: "SHIPPER_SUBJECT=shipper\n"
        mode: "0640"
        validate: [/usr/local/bin/shipper, producer, --check, --env-file]
"""

RETURN = r"""
changed_paths:
  description: The paths of the entries that were changed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/shipper/producer.env]
unread_paths:
  description:
    - RV(changed_paths), and the paths of the entries with O(entries[].read_by) or O(entries[].read_at) that were
      changed later than they were read. So what a run that failed has left to be done is done by the next one.
  returned: always
  type: list
  elements: str
  sample: [/etc/shipper/producer.env]
  version_added: 0.2.0
"""

import glob
import os
import re
import shutil
import tempfile
import time
from calendar import timegm
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_PARENT_MODE = 0o755
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z\Z")


class Layout:
    """Puts entries in place and keeps what it changed: first prepare() for all of them, then put()."""

    def __init__(self, module: AnsibleModule) -> None:
        self.changed: list[str] = []
        self.diffs: list[dict[str, str]] = []
        # What was removed, or would be.
        self._gone: set[str] = set()
        self._module = module
        # Files that go live with the next one.
        self._waiting: list[dict[str, Any]] = []
        # Where new content lies until it goes live, by path; and the folders for that.
        self._staged: dict[str, str] = {}
        self._staging: list[str] = []

    def prepare(self, entry: dict[str, Any]) -> None:
        """Do what nobody notices, and look whether the rest can be done; fails with a sentence where it cannot."""
        self._do("_prepare_", entry)

    def put(self, entry: dict[str, Any]) -> None:
        """Put one entry in place; fails with a sentence where that cannot be."""
        self._do("_put_", entry)

    def close(self) -> None:
        """Remove what did not go live."""
        for folder in self._staging:
            shutil.rmtree(folder, ignore_errors=True)

    def _do(self, what: str, entry: dict[str, Any]) -> None:
        try:
            step = getattr(self, what + entry["state"], None)
            if step is not None:
                step(entry)
        except OSError as error:
            self._module.fail_json(msg="%s: %s" % (entry["path"], error.strerror or error))

    def _prepare_directory(self, entry: dict[str, Any]) -> None:
        # A link to a folder is as good as one.
        path = os.path.realpath(entry["path"])
        if os.path.lexists(path) and not os.path.isdir(path):
            self._module.fail_json(msg="%s is no folder: move it away" % path)
        if not os.path.isdir(path):
            self._note(entry["path"], "", "directory\n")
            if not self._module.check_mode:
                self._make_folders(path)
        self._set_attributes(entry, path)

    def _make_folders(self, path: str) -> None:
        missing = [path]
        while not os.path.isdir(os.path.dirname(missing[-1])):
            missing.append(os.path.dirname(missing[-1]))
        for folder in reversed(missing):
            os.mkdir(folder)
            # Whatever the umask: the service must get through.
            os.chmod(folder, _PARENT_MODE)

    def _prepare_link(self, entry: dict[str, Any]) -> None:
        for path in (entry["path"], entry["previous"]):
            if path and os.path.lexists(path) and not os.path.islink(path):
                self._module.fail_json(msg="%s is there and is no link: move it away" % path)

    def _put_link(self, entry: dict[str, Any]) -> None:
        path, target = entry["path"], entry["to"]
        now = os.readlink(path) if os.path.islink(path) else None
        if now == target:
            return
        self._note(path, "" if now is None else "-> %s\n" % now, "-> %s\n" % target)
        # First: whoever stops here knows at least what is there.
        if entry["previous"] and now is not None:
            self._put_link({"path": entry["previous"], "to": now, "previous": None})
        if not self._module.check_mode:
            new = os.path.join(os.path.dirname(path), ".shipper-%d" % os.getpid())
            os.symlink(target, new)
            os.replace(new, path)

    def _prepare_file(self, entry: dict[str, Any]) -> None:
        self._waiting.append(entry)
        if entry["together"]:
            return
        entries, self._waiting = self._waiting, []
        changed = [each["path"] for each in entries if self._differs(each)]
        if changed and not self._module.check_mode:
            folder = self._stage(entries)
            self._staged.update((path, os.path.join(folder, os.path.basename(path))) for path in changed)

    def _put_file(self, entry: dict[str, Any]) -> None:
        if entry["path"] in self._staged:
            os.replace(self._staged[entry["path"]], entry["path"])
        self._set_attributes(entry, entry["path"])

    def _differs(self, entry: dict[str, Any]) -> bool:
        path = entry["path"]
        now = None
        if os.path.lexists(path):
            with open(path, "rb") as file:
                now = file.read()
        if now == _content(entry):
            return False
        if entry["content"] is None:
            self._note(path, "what it held is a secret\n" if now else "", "what it holds is a secret\n")
        else:
            self._note(path, (now or b"").decode(errors="replace"), entry["content"])
        return True

    def _stage(self, entries: list[dict[str, Any]]) -> str:
        """Files are made beside where they belong, for a name is switched at once only on its own file system."""
        folder = os.path.dirname(entries[-1]["path"])
        if any(os.path.dirname(entry["path"]) != folder for entry in entries):
            self._module.fail_json(msg="%s: files that go live together must be in one folder" % entries[0]["path"])
        staged = tempfile.mkdtemp(prefix=".shipper-", dir=folder)
        self._staging.append(staged)
        for entry in entries:
            new = os.path.join(staged, os.path.basename(entry["path"]))
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(_content(entry))
            self._module.set_fs_attributes_if_different(self._module.load_file_common_arguments(entry, path=new), False)
        if entries[-1]["validate"]:
            self._validate(entries[-1], os.path.join(staged, os.path.basename(entries[-1]["path"])))
        return staged

    def _validate(self, entry: dict[str, Any], new: str) -> None:
        code, out, err = self._module.run_command([*entry["validate"], new])
        if code != 0:
            self._module.fail_json(
                msg="%s was left as it is, for what it was to hold cannot work: %s"
                % (entry["path"], (err or out).strip() or "%s failed" % entry["validate"][0])
            )

    def _put_absent(self, entry: dict[str, Any]) -> None:
        folder, name = os.path.split(entry["path"])
        # A folder is the operator's, and may have any name.
        pattern = os.path.join(glob.escape(folder), name)
        found = [path for path in sorted(glob.glob(pattern)) if path not in entry["keep"]]
        if entry["keep_newest"] is not None:
            linked = {os.path.realpath(path) for path in _links_beside(entry["path"])}
            found = [path for path in found if os.path.islink(path) or os.path.realpath(path) not in linked]
            found = sorted(found, key=os.path.getmtime, reverse=True)[entry["keep_newest"] :]
        if not found and os.path.islink(entry["path"]) and entry["path"] not in entry["keep"]:
            # glob() does not see a link to nowhere.
            found = [entry["path"]]
        for path in found:
            if os.path.isdir(path) and not os.path.islink(path):
                self._remove_folder(path)
                continue
            self._note(path, "file\n", "")
            self._gone.add(path)
            if not self._module.check_mode:
                os.unlink(path)

    def _remove_folder(self, path: str) -> None:
        """Only where nothing is left in it, or would be."""
        if all(os.path.join(path, name) in self._gone for name in os.listdir(path)):
            self._note(path, "directory\n", "")
            self._gone.add(path)
            if not self._module.check_mode:
                os.rmdir(path)

    def _set_attributes(self, entry: dict[str, Any], path: str) -> None:
        if not os.path.lexists(path):
            return
        diff: dict[str, Any] = {}
        arguments = self._module.load_file_common_arguments(entry, path=path)
        if self._module.set_fs_attributes_if_different(arguments, False, diff):
            self._note(
                entry["path"],
                "".join("%s: %s\n" % item for item in sorted(diff.get("before", {}).items())),
                "".join("%s: %s\n" % item for item in sorted(diff.get("after", {}).items())),
            )

    def unread(self, entries: list[dict[str, Any]]) -> list[str]:
        """The paths that were changed, and those that nobody has read since they were."""
        read = Readers(self._module, sorted({name for entry in entries for name in entry["read_by"]}))
        late = [entry["path"] for entry in entries if _is_newer(entry["path"], read.at(entry))]
        return list(dict.fromkeys([*self.changed, *late]))

    def _note(self, path: str, before: str, after: str) -> None:
        if path not in self.changed:
            self.changed.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})


class Readers:
    """When systemd's services began, in seconds since 1970; those that do not run have read nothing."""

    def __init__(self, module: AnsibleModule, names: list[str]) -> None:
        self._began: dict[str, float] = {}
        if not names:
            return
        show = ["systemctl", "show", "--property", "Id,ActiveState,ExecMainStartTimestampMonotonic"]
        since_boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
        for text in module.run_command([*show, *names])[1].split("\n\n"):
            found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
            if found.get("ActiveState") in ("active", "activating", "reloading"):
                began = int(found.get("ExecMainStartTimestampMonotonic") or 0)
                # As the clock has it now: it may have been set since.
                self._began[found["Id"]] = since_boot + began / 1e6

    def at(self, entry: dict[str, Any]) -> float | None:
        """When an entry was last read by all that read it; None where nobody does, or it is not known."""
        if entry["read_by"]:
            return min(self._began.get(name, 0.0) for name in entry["read_by"])
        match = _STAMP.match(entry["read_at"])
        if match is None:
            return None
        return timegm(time.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S")) + float(match.group(2) or 0)


def _is_newer(path: str, read: float | None) -> bool:
    if read is None or not os.path.lexists(path):
        return False
    # Of a time to come nobody knows what it was before the clock was set.
    return read < os.lstat(path).st_ctime <= time.time() + 1


def _links_beside(path: str) -> list[str]:
    folder = os.path.dirname(path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if os.path.islink(os.path.join(folder, name))]


def _content(entry: dict[str, Any]) -> bytes:
    text: str = entry["secret"] if entry["content"] is None else entry["content"]
    return text.encode()


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            "entries": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "state": {
                        "type": "str",
                        "choices": ["directory", "link", "file", "absent"],
                        "required": True,
                    },
                    "to": {"type": "str"},
                    "previous": {"type": "str"},
                    "content": {"type": "str"},
                    "secret": {"type": "str", "no_log": True},
                    "validate": {"type": "list", "elements": "str"},
                    "together": {"type": "bool", "default": False},
                    "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},
                    "keep_newest": {"type": "int", "no_log": False},
                    "read_by": {"type": "list", "elements": "str", "default": []},
                    "read_at": {"type": "str", "default": ""},
                    "mode": {"type": "str"},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                },
                "required_if": [
                    ("state", "link", ["to"]),
                    ("state", "file", ["content", "secret"], True),
                ],
                "mutually_exclusive": [("content", "secret")],
            },
        },
        supports_check_mode=True,
    )
    entries = module.params["entries"]
    layout = Layout(module)
    try:
        for entry in entries:
            layout.prepare(entry)
        for entry in entries:
            layout.put(entry)
    finally:
        layout.close()
    unread = layout.unread(entries)
    module.exit_json(changed=bool(layout.changed), changed_paths=layout.changed, unread_paths=unread, diff=layout.diffs)


if __name__ == "__main__":
    main()
