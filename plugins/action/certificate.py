# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of certificate: the CA, and what it signs. The host's part is the module of the same name."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.logfleet.shipper.plugins.plugin_utils.authority import (
    Authority,
    AuthorityProblem,
    alternative_names,
    read_certificate,
)

_SPECIFICATION: dict[str, Any] = {
    "authority": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "usages": {"type": "list", "elements": "str", "choices": ["client", "server"], "default": ["client"]},
    "days": {"type": "int", "default": 397},
    "certificate": {"type": "path", "required": True},
    "key": {"type": "path", "required": True},
    "ca": {"type": "path", "required": True},
    "mode": {"type": "str", "default": "0640"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}


class ActionModule(ActionBase):
    """Ansible's entry point."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look at the host, sign what is needed, put it there."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.pop("invocation", None)
        _valid, options = self.validate_argument_spec(_SPECIFICATION)
        try:
            result.update(self._run(options, task_vars or {}))
        except AuthorityProblem as problem:
            raise AnsibleActionFail(str(problem)) from None
        return result

    def _run(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        names, days = options["names"], options["days"]
        if not names or days < 1:
            raise AuthorityProblem("a certificate needs names and days: names=%s, days=%s" % (names, days))
        wanted = ", ".join(sorted(alternative_names(names)))
        authority = Authority(options["authority"])
        made = not authority.exists()
        if made and not self._task.check_mode:
            made = authority.make()

        host = {name: value for name, value in options.items() if value is not None}
        found = self._on_host(host, task_vars)
        changed_paths: list[str] = found["changed_paths"]
        diffs: list[dict[str, str]] = found["diff"]
        there = authority.exists()
        request, now = found["request"], found["certificate"]
        if not there:
            reason: str | None = "there is no CA yet"
        elif now is None:
            reason = "there is none yet"
        else:
            reason = authority.renewal(now, request, names, options["usages"])
        bundle = authority.bundle if there else ""
        trusted = found["ca"] == bundle and there

        if reason is not None:
            changed_paths.append(options["certificate"])
            diffs.append(
                {
                    "before_header": options["certificate"],
                    "after_header": options["certificate"],
                    "before": "" if now is None else "%s\n" % _described(now),
                    "after": "%s, for %d days: %s\n" % (wanted, days, reason),
                }
            )
        if not trusted:
            changed_paths.append(options["ca"])
            diffs.append(
                {
                    "before_header": options["ca"],
                    "after_header": options["ca"],
                    "before": found["ca"] or "",
                    "after": bundle or "a CA made anew\n",
                }
            )
        if changed_paths and not self._task.check_mode:
            signed = now
            if reason is not None:
                signed = authority.sign(request, names, options["usages"], days)
            if reason is not None or not trusted:
                self._on_host({**host, "signed": signed, "bundle": bundle}, task_vars)
        return {
            "changed": bool(changed_paths) or made,
            "changed_paths": list(dict.fromkeys(changed_paths)),
            "reason": reason or "",
            "diff": diffs,
        }

    def _on_host(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="logfleet.shipper.certificate", module_args=arguments, task_vars=task_vars
        )
        if answer.get("failed"):
            raise AuthorityProblem(str(answer.get("msg") or answer.get("module_stderr") or "the host's part failed"))
        return answer


def _described(pem: str) -> str:
    try:
        return str(read_certificate(pem))
    except AuthorityProblem:
        return "no certificate"
