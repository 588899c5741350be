# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down each task that ran on a host: skipped ones do not count, nor handlers."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.playbook.handler import Handler
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: ran
type: aggregate
short_description: Which tasks ran on which hosts
description: Writes a JSON object a line to the file that RAN_LOG names.
author: The logfleet developers (@logfleet)
"""


class CallbackModule(CallbackBase):
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ran"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._file = open(os.environ["RAN_LOG"], "w", encoding="utf-8")  # noqa: SIM115  # as long as the run
        self._play = ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play.get_name()

    def v2_runner_on_ok(self, result: Any, **more: Any) -> None:
        self._note(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result)

    def _note(self, result: Any) -> None:
        if not isinstance(result._task, Handler):
            row = {"host": result._host.get_name(), "play": self._play, "task": result._task.get_name()}
            print(json.dumps(row), file=self._file, flush=True)
