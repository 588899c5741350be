# SPDX-License-Identifier: GPL-3.0-or-later
"""The signals that stop a service: held from the program's first moment to its last, but while somebody heeds them.

Loading takes a fifth of a second, and in it a signal would kill what later stops in good order. One that is held comes
through as soon as it is let.
"""

from __future__ import annotations

import signal

# A terminal that is closed sends SIGHUP. Settings are read at the start only: there is nothing to reload.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold() -> None:
    """What comes from here on waits; if it waits for ever, the program ends as if it had not come."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def let() -> None:
    """What has waited comes through."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
