# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error that the runtime raises on purpose.

::

    ShipperError
    ├── UsageError          a command line that cannot be understood; exit code 2
    ├── SettingError        a setting that cannot work: names the variable, the value and the remedy; exit code 2
    ├── StateError          the producer's folder of positions cannot be used; exit code 2
    ├── LedgerError         the archive's ledger cannot be used; exit code 2
    ├── NotShipped          what a host's files hold does not arrive; exit code 1
    ├── OutputError         what a command prints cannot be written; exit code 1
    ├── WireError           a message that is not one of ours and not a plain line: rejected and counted
    └── BrokerError         what was asked of the broker was not done: say so, wait, try again
        ├── PublishRefused  the server does not permit what was sent
        ├── ConnectionLost  the connection went away with work in hand: do it again on the next one
        ├── NoAnswer        a request was not answered in time
        ├── NoResponders    nobody serves the subject: there is no such stream, no JetStream, or no leader
        ├── ApiError        JetStream says no: carries its code and words
        └── OutOfStep       a reader got another message than the next one: it begins again behind what it committed

What is retried and what is fatal is decided by these classes alone. A service retries every BrokerError for ever; a
command that runs once ends with it. WireError costs one message, the others end the program with one line.
"""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_FAULT = 1


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


class NotShipped(ShipperError):
    """What the files of this host hold does not arrive."""


class OutputError(ShipperError):
    """What a command prints cannot be written."""

    def __str__(self) -> str:
        return "the output cannot be written: %s" % self.args


class WireError(ShipperError):
    """A message that breaks docs/wire.md; reason is a short fixed phrase, fit to be a metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LedgerError(ShipperError):
    """The archive's ledger cannot be used."""


class BrokerError(ShipperError):
    """What was asked of the broker was not done."""


class ConnectionLost(BrokerError):
    """The connection went away before what was sent on it was known to have arrived."""


class PublishRefused(BrokerError):
    """The server does not permit what was sent; nothing of it was taken."""


class NoAnswer(BrokerError):
    """A request was not answered in time: whether it was done is not known."""


class NoResponders(BrokerError):
    """Nobody serves the subject that was asked."""


class ApiError(BrokerError):
    """JetStream's own no.

    code is like HTTP's (404), err_code one of the server's list (10059), description its words.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(code, err_code, description)
        self.code = code
        self.err_code = err_code
        self.description = description

    def __str__(self) -> str:
        return "%s (%d)" % (printable(self.description), self.err_code)


class OutOfStep(BrokerError):
    """What a reader got is not what comes next."""


def printable(value: str) -> str:
    """value on one line: what is not printable is escaped, and an empty value is shown as ''."""
    if not value:
        return "''"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in value)
