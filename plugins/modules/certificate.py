#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's part of certificate; what the controller does is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: A host has a key, and a certificate of the fleet's own CA
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Makes the CA on the controller where there is none yet, in a folder that holds C(ca.key), which never leaves it, and
    C(ca.pem), which may hold more certificates that hosts are to trust.
  - The host makes its own key (EC P-256), which never leaves it, and a signing request. It is signed on the controller,
    with the names and usages of this task, whatever the request asks for. The serial number is random.
  - A certificate is made anew in the last third of its life; where its names or usages change; where the host's key
    was made anew; and where it was signed by another CA than the one whose key is C(ca.key). The key stays.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - Shows a certificate's names and end, never a key.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - openssl, on the controller and on the host
options:
  authority:
    description: The folder of the CA on the controller.
    type: path
    required: true
  names:
    description:
      - The names and addresses that the certificate is to hold, as DNS names. An address is there as an address too.
      - The first is the subject's common name as well, cut to 64 bytes.
    type: list
    elements: str
    required: true
  usages:
    description: What the certificate may be used for, to be a client, to be a server, or both.
    type: list
    elements: str
    choices:
      - client
      - server
    default:
      - client
  days:
    description: For how many days a new certificate holds. It does not hold longer than the CA's own.
    type: int
    default: 397
  certificate:
    description: The path of the certificate on the host.
    type: path
    required: true
  key:
    description: The path of the key on the host. Folders that are missing are made with mode C(0750).
    type: path
    required: true
  ca:
    description: The path of the CA's certificates on the host.
    type: path
    required: true
  mode:
    description: The mode of the key. Certificates have C(0644).
    type: str
    default: "0640"
  owner:
    description: The owner of the files.
    type: str
  group:
    description: The group of the files.
    type: str
  signed:
    description: The certificate that the controller has signed. The action plugin sets it, and nobody else can.
    type: str
  bundle:
    description: The CA's certificates. The action plugin sets it, and nobody else can.
    type: str
"""

EXAMPLES = r"""
- name: Give a host its certificate
  logfleet.shipper.certificate:
    authority: "{{ inventory_dir }}/pki"
    names:
      - "{{ inventory_hostname }}"
    certificate: /etc/shipper/tls/cert.pem
    key: /etc/shipper/tls/key.pem
    ca: /etc/shipper/tls/ca.pem
    owner: root
    group: shipper
"""

RETURN = r"""
changed_paths:
  description: The paths of what was changed on the host, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/shipper/tls/cert.pem]
reason:
  description: Why the certificate was made anew. Empty where it was not.
  returned: always
  type: str
  sample: it ends 2026-12-24
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_CERTIFICATE_MODE = "0644"
_FOLDER_MODE = "0750"
# The subject does not count: the controller decides.
_REQUEST_CONFIG = "[req]\ndistinguished_name = subject\nprompt = no\n[subject]\nCN = shipper\n"


class Files:
    """The files of a certificate on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.changed: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self._module = module
        self._openssl = module.get_bin_path("openssl", opt_dirs=["/usr/local/bin", "/usr/bin"])
        if self._openssl is None:
            module.fail_json(
                msg="this host has no openssl, which makes its key: install it, or set shipper_tls=provided"
            )

    def look(self) -> dict[str, Any]:
        """What is there, after a missing key was made; None for what is not."""
        key = self._module.params["key"]
        if not os.path.lexists(key):
            self._note(key, "", "a key, made on this host\n")
            if not self._module.check_mode:
                self._make_folders(os.path.dirname(key))
                self._write(key, self._run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"))
        for name in ("key", "certificate", "ca"):
            self._set_attributes(self._module.params[name], self._mode(name))
        return {
            "request": self._request(key) if os.path.lexists(key) else None,
            "certificate": _read(self._module.params["certificate"]),
            "ca": _read(self._module.params["ca"]),
        }

    def put(self) -> None:
        """Write what the controller gave. The authorities come first: nothing trusts less than before."""
        for name, given in (("ca", "bundle"), ("certificate", "signed")):
            path, content = self._module.params[name], self._module.params[given]
            if _read(path) != content:
                self._make_folders(os.path.dirname(path))
                self._write(path, content, self._mode(name))
                self.changed.append(path)

    def _mode(self, name: str) -> str:
        return str(self._module.params["mode"]) if name == "key" else _CERTIFICATE_MODE

    def _request(self, key: str) -> str:
        with tempfile.NamedTemporaryFile("w", prefix="shipper-", encoding="ascii") as config:
            config.write(_REQUEST_CONFIG)
            config.flush()
            return self._run("req", "-new", "-sha256", "-config", config.name, "-key", key)

    def _run(self, *arguments: str) -> str:
        code, out, err = self._module.run_command([self._openssl, *arguments])
        if code != 0:
            lines = [line for line in err.splitlines() if line.strip()]
            self._module.fail_json(
                msg="openssl %s failed, for %s: %s; where it is no key, remove it"
                % (arguments[0], self._module.params["key"], lines[0] if lines else "it said nothing")
            )
        return str(out)

    def _make_folders(self, folder: str) -> None:
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            os.mkdir(path, 0o700)
            self._set_attributes(path, _FOLDER_MODE, note=False)

    def _write(self, path: str, content: str, mode: str | None = None) -> None:
        handle, new = tempfile.mkstemp(prefix=".shipper-", dir=os.path.dirname(path))
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(content)
            self._set_attributes(new, mode or self._mode("key"), note=False)
            os.replace(new, path)
        finally:
            if os.path.lexists(new):
                os.unlink(new)

    def _set_attributes(self, path: str, mode: str, note: bool = True) -> None:
        if not os.path.lexists(path):
            return
        wanted = {"mode": mode, "owner": self._module.params["owner"], "group": self._module.params["group"]}
        arguments = self._module.load_file_common_arguments({**wanted, "path": path}, path=path)
        if self._module.set_fs_attributes_if_different(arguments, False) and note:
            self._note(path, "another owner, group or mode\n", "mode %s\n" % mode)

    def _note(self, path: str, before: str, after: str) -> None:
        self.changed.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            # The first four are for the controller.
            "authority": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "usages": {"type": "list", "elements": "str", "choices": ["client", "server"], "default": ["client"]},
            "days": {"type": "int", "default": 397},
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "ca": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0640"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "signed": {"type": "str"},
            "bundle": {"type": "str"},
        },
        supports_check_mode=True,
        required_together=[("signed", "bundle")],
    )
    files = Files(module)
    found: dict[str, Any] = {}
    try:
        if module.params["signed"] is None:
            found = files.look()
        else:
            files.put()
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or module.params["key"], error.strerror or error))
    module.exit_json(changed=bool(files.changed), changed_paths=files.changed, diff=files.diffs, **found)


if __name__ == "__main__":
    main()
