# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error that the runtime raises on purpose.

::

    ShipperError
    ├── UsageError          a command line that cannot be understood; exit code 2
    ├── SettingError        a setting that cannot work: names the variable, the value and the remedy; exit code 2
    ├── StateError          the producer's folder of positions cannot be used; exit code 2
    ├── WireError           a message that is not one of ours and not a plain line: rejected and counted
    ├── PublishRefused      the server does not permit what was sent: say so, wait, try again
    └── ConnectionLost      the connection went away with work in hand: do it again on the next one

What is retried and what is fatal is decided by these classes alone: ConnectionLost and PublishRefused are retried for
ever, WireError costs one message, the others end the program with one line.
"""

from __future__ import annotations

EXIT_USAGE = 2


class ShipperError(Exception):
    """The root: its text is one line for an operator."""


class UsageError(ShipperError):
    """A command line that cannot be understood."""


class SettingError(ShipperError):
    """A setting that cannot work.

    variable is the name the operator wrote (SHIPPER_FILE), value what it holds, with secrets already taken out, and
    remedy what to do about it.
    """

    def __init__(self, variable: str, value: str | None, remedy: str) -> None:
        super().__init__(variable, value, remedy)
        self.variable = variable
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        if self.value is None:
            return "%s is not set: %s" % (self.variable, self.remedy)
        return "%s=%s: %s" % (self.variable, printable(self.value), self.remedy)


class StateError(ShipperError):
    """The producer's folder of positions cannot be used."""


class WireError(ShipperError):
    """A message that breaks docs/wire.md; reason is a short fixed phrase, fit to be a metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLost(ShipperError):
    """The connection went away before what was sent on it was known to have arrived."""


class PublishRefused(ShipperError):
    """The server does not permit what was sent; nothing of it was taken."""


def printable(value: str) -> str:
    """value on one line: what is not printable is escaped, and an empty value is shown as ''."""
    if not value:
        return "''"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in value)
