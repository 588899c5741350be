#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Switches a host to another version of the program that it has kept
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - The link C(current) below C(/opt/shipper) is switched to what C(previous) points to, or to O(version).
  - The settings of every service of the host are validated by that version first. Where it refuses one, nothing is
    changed.
  - C(previous) is left as it is, so to go back a second time changes nothing.
  - What the service managers have of the program's hash is brought up to date, so that the next rollout starts the
    services anew. They must be restarted behind this module.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
options:
  root:
    description: The folder below which everything lies, empty for C(/).
    type: str
    default: ""
  version:
    description: The version to switch to. Without it, the one that ran before.
    type: str
  python:
    description: The Python that runs the program.
    type: path
    default: /usr/bin/python3
"""

EXAMPLES = r"""
- name: Go back
  logfleet.shipper.rollback:
  register: back
"""

RETURN = r"""
msg:
  description: What was done, or why there is nothing to do, in one sentence.
  returned: always
  type: str
  sample: went back from 0.2.0 to 0.1.0
services:
  description:
    - The services of the host that must be started anew, named as their settings are.
    - Empty where nothing was changed.
  returned: always
  type: list
  elements: str
  sample: [shipper-producer, shipper-consumer-1]
"""

import glob
import hashlib
import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logfleet.shipper.plugins.module_utils.program import CLEAN

# What says the hash of the program to systemd's units and to supervisor's programs.
_HASH = re.compile(
    rb"^(# It starts the program with the hash |environment=SHIPPER_READS=\")([0-9a-f]{64})", re.MULTILINE
)
_SETTINGS = (("producer.env", "producer"), ("consumer-*.env", "consumer"))


class Host:
    """The versions, settings and services of a host below a root."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        root = module.params["root"]
        self._etc = root + "/etc/shipper"
        self._opt = root + "/opt/shipper"
        self._units = root + "/etc/systemd/system"

    def run(self) -> None:
        """Switch, and say so; leaves the module."""
        current, target = self._linked("current"), self._target()
        if current is None:
            self._nothing("no version is installed here, so there is nothing to go back to")
        elif target is None:
            self._nothing("%s is the only version that ran here: there is nothing to go back to" % current)
        elif target == current:
            self._nothing("%s runs, which is what was to be gone back to" % current)
        else:
            services = self._validate(os.path.join(self._opt, target))
            marked = self._marked(os.path.join(self._opt, target))
            if not self._module.check_mode:
                for path, content in marked:
                    self._replace(path, content)
                self._switch(target)
            self._module.exit_json(
                changed=True,
                msg="went back from %s to %s" % (current, target),
                services=services,
                diff={"before": "current -> %s\n" % current, "after": "current -> %s\n" % target},
            )

    def _nothing(self, why: str) -> None:
        self._module.exit_json(changed=False, msg=why, services=[])

    def _linked(self, name: str) -> str | None:
        link = os.path.join(self._opt, name)
        return os.path.basename(os.readlink(link)) if os.path.islink(link) and os.path.exists(link) else None

    def _target(self) -> str | None:
        version = self._module.params["version"]
        if not version:
            return self._linked("previous")
        kept = [os.path.basename(path) for path in sorted(glob.glob(os.path.join(self._opt, "[0-9]*")))]
        if version not in kept:
            remedy = "it has %s: name one of these, or roll that one out" % (", ".join(kept) or "none")
            self._module.fail_json(msg="shipper_version=%s: this host does not keep it; %s" % (version, remedy))
        return str(version)

    def _validate(self, program: str) -> list[str]:
        """The services. Fails where the program refuses the settings of one."""
        services = []
        for pattern, command in _SETTINGS:
            for path in sorted(glob.glob(os.path.join(self._etc, pattern))):
                argv = [*CLEAN, self._module.params["python"], program, command, "--check", "--env-file", path]
                code, out, err = self._module.run_command(argv)
                if code != 0:
                    text = (err or out).strip() or "exit code %d" % code
                    self._module.fail_json(
                        msg="%s cannot work with %s, so nothing was changed: %s"
                        % (os.path.basename(program), path, text)
                    )
                name = os.path.splitext(os.path.basename(path))[0]
                services.append("shipper-" + name)
        return services

    def _marked(self, program: str) -> list[tuple[str, bytes]]:
        """The files that say the program's hash, with what they must hold."""
        with open(program, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest().encode()
        found = []
        for pattern in (self._units + "/shipper-*.service", self._etc + "/supervisor/shipper-*.ini"):
            for path in sorted(glob.glob(pattern)):
                with open(path, "rb") as file:
                    content = file.read()
                found.append((path, _HASH.sub(rb"\g<1>" + digest, content)))
        return found

    def _replace(self, path: str, content: bytes) -> None:
        status = os.stat(path)
        handle, new = tempfile.mkstemp(prefix=".shipper-", dir=os.path.dirname(path))
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(new, status.st_mode & 0o7777)
        os.chown(new, status.st_uid, status.st_gid)
        os.replace(new, path)

    def _switch(self, target: str) -> None:
        new = os.path.join(self._opt, ".shipper-%d" % os.getpid())
        os.symlink(os.path.join(self._opt, target), new)
        os.replace(new, os.path.join(self._opt, "current"))


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "str", "default": ""},
            "version": {"type": "str"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    Host(module).run()


if __name__ == "__main__":
    main()
