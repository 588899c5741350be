# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands say: on stdout what was asked for, on stderr why not. Either may be full or closed."""

from __future__ import annotations

import contextlib
import os
import sys

from .errors import OutputError, printable


def put(text: str = "") -> None:
    """Print text, its last line ended, and see that all is out that was printed so far; what stdout's encoding lacks is
    escaped. Raises OutputError, and BrokenPipeError where whoever read it has gone."""
    if sys.stdout is None:
        raise OutputError("it is closed")
    encoding = sys.stdout.encoding
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="" if text[-1:] in ("", "\n") else "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror) from None


def put_error(text: str) -> None:
    """One line on stderr, whatever text holds, if anybody takes it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("shipper: %s" % printable(text), file=sys.stderr)


def give_up() -> None:
    """What could not be written never will be: the interpreter would try again at its end, and let that be the exit
    code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
