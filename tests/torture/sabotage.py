# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts our program with one safeguard taken out, to see that the torture notices.

python -m tests.torture.sabotage NAME consumer …
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable

EXIT_NO_TARGET = 3
"""What should be patched is not there any more: whoever changed it has to look here too."""
_DELAY_SECONDS = 0.5


class NoTarget(Exception):
    """There is nothing of this name to patch."""


def _replace(owner: Any, name: str, new: Any) -> Any:
    """Put new where owner has name; returns what was there."""
    old = vars(owner).get(name)
    if old is None:
        raise NoTarget("%s has no %s" % (owner, name))
    setattr(owner, name, new)
    return old


def no_truncation() -> None:
    """Bytes behind a file's committed length are not cut off, and what comes is written behind them."""
    from shipper_runtime import vault

    class NoTruncation:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name) if name != "ftruncate" else lambda fd, length: None

    def see(self: Any, file: Any) -> Any:
        row = old(self, file)
        file.end = os.fstat(file.fd).st_size
        return row

    _expect(vault._File.__slots__, "end", "fd")
    _replace(vault, "os", NoTruncation())
    _replace(vault.Vault, "cut_back", lambda self: None)
    old = _replace(vault.Vault, "_see", see)


def no_skipping() -> None:
    """What a source's offsets show to be a repeat is written again."""
    from shipper_runtime import intake

    def take(self: Any, name: str, span: Any, payload: bytes) -> Any:
        life = self._host(name).lives.get(span.life)
        if life is not None:
            life.next = min(life.next, span.begin)
        return old(self, name, span, payload)

    _expect(intake._Life.__slots__, "next")
    _expect(vars(intake.Intake), "_host")
    old = _replace(intake.Intake, "take", take)


def commit_first() -> None:
    """The ledger's commit comes first, and the bytes a little later."""
    from shipper_runtime import vault

    late: list[tuple[Any, bytes, int]] = []

    def write(self: Any, file: Any) -> None:
        data = b"".join(file.chunks)
        file.chunks.clear()
        late.append((file, data, file.end))
        file.end += len(data)

    def settle(self: Any) -> None:
        if self._touched:
            time.sleep(_DELAY_SECONDS)
        mine = [entry for entry in late if entry[0] in self._touched.values()]
        for entry in mine:
            late.remove(entry)
            file, data, at = entry
            os.pwrite(file.fd, data, at)
        old(self)

    _expect(vault._File.__slots__, "chunks", "end", "fd")
    _replace(vault.Vault, "sync", lambda self: None)
    _replace(vault.Vault, "_write", write)
    old = _replace(vault.Vault, "settle", settle)


def _expect(names: Any, *wanted: str) -> None:
    for name in wanted:
        if name not in names:
            raise NoTarget("there is no %s any more" % name)


SABOTAGES: dict[str, Callable[[], None]] = {
    "no-truncation": no_truncation,
    "no-skipping": no_skipping,
    "commit-first": commit_first,
}


def main(arguments: list[str]) -> int:
    name, *rest = arguments
    try:
        SABOTAGES[name]()
    except (ImportError, AttributeError, NoTarget) as error:
        print("sabotage %s finds no target: %s" % (name, error), file=sys.stderr)
        return EXIT_NO_TARGET
    from shipper_runtime.cli import main as shipper

    return shipper(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
