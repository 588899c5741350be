# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts our program with one safeguard taken out, to see that the torture notices.

python -m tests.torture.sabotage NAME consumer …
"""

from __future__ import annotations

import sys
from typing import Callable

EXIT_NO_TARGET = 3
"""What should be patched is not there any more: whoever changed it has to look here too."""


def no_truncation() -> None:
    """Files are not cut back to their committed length when a session begins."""
    raise AttributeError("not written yet: durable mode is not there")


def no_skipping() -> None:
    """What the source's offsets show to be a repeat is written again."""
    raise AttributeError("not written yet: durable mode is not there")


def commit_first() -> None:
    """The ledger's commit comes before the bytes are written."""
    raise AttributeError("not written yet: durable mode is not there")


SABOTAGES: dict[str, Callable[[], None]] = {
    "no-truncation": no_truncation,
    "no-skipping": no_skipping,
    "commit-first": commit_first,
}


def main(arguments: list[str]) -> int:
    name, *rest = arguments
    try:
        SABOTAGES[name]()
    except (ImportError, AttributeError, TypeError) as error:
        print("sabotage %s finds no target: %s" % (name, error), file=sys.stderr)
        return EXIT_NO_TARGET
    from shipper_runtime.cli import main as shipper

    return shipper(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
