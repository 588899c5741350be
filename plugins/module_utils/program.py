# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The installed program, as modules run it: what it prints with --json, and what it says when it cannot."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Nothing of anybody's environment may pass for a setting.
CLEAN = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
PROGRAM = "/usr/local/bin/shipper"
ADMIN = "/etc/shipper/admin.env"

# The options that all modules have which run it.
OPTIONS: dict[str, Any] = {
    "program": {"type": "path", "default": PROGRAM},
    "python": {"type": "path"},
    "env_file": {"type": "path", "default": ADMIN},
}


class ProgramError(Exception):
    """What the program said when it could not: one line. printed is what it had done until then, decoded, or None."""

    def __init__(self, text: str, code: int, printed: Any) -> None:
        super().__init__(text)
        self.code = code
        self.printed = printed


class Program:
    """Runs commands of the program with a file of settings."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self.path: str = module.params["program"]
        self.env_file: str = module.params["env_file"]

    def missing(self) -> str | None:
        """What is not there yet of what is needed, or None."""
        return next((path for path in (self.path, self.env_file) if not os.path.exists(path)), None)

    def ask(self, command: str, *arguments: str) -> Any:
        """What a command prints with --json, decoded. Raises ProgramError."""
        python = self._module.params["python"]
        argv = CLEAN + ([python] if python else []) + [self.path, command, "--json", "--env-file", self.env_file]
        code, out, err = self._module.run_command([*argv, *arguments])
        printed = _decoded(out)
        if code != 0 or printed is None:
            text = err.strip() or out.strip() or "%s %s failed with exit code %d" % (self.path, command, code)
            # The program's own prefix; the module's message has one of Ansible's.
            lines = [line[len("shipper: ") :] if line.startswith("shipper: ") else line for line in text.splitlines()]
            raise ProgramError(" ".join(lines), code, printed)
        return printed


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
