# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that rotation gives to a file, and which of two such files is the older: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

CODECS = {b".gz": "gz", b".bz2": "bz2", b".xz": "xz", b".zst": "zst"}
"""Compressed siblings by how their names end; zst is known but cannot be read with the standard library."""

# What rotation appends to the whole name: .1, -20260131, .2026-01-31_10, .2026-01-31T10:00:00.000Z, .old, .bak.1, ~
# Behind a dash a small number alone is none: worker-2 stands beside worker.
_SURE = re.compile(
    rb"(?:~|[._-](?:old|bak|prev|rotated)"
    rb"|(?:\.[0-9]+|[._-][0-9]{4,}|[._-][0-9]+[._:T+-][0-9]+)(?:[._:T+-]?[0-9]+)*Z?)+\Z"
)
_DIGITS = re.compile(rb"[0-9]+")
# Above it a single number is a date or a time stamp, and grows; up to it an index: mostly the oldest has the highest.
_INDEX_MAX = 999


@dataclass(frozen=True)
class Rotated:
    """How a name was made from another one: shape is what was added, digits made #, without the compression's ending.

    sure: nothing but a rotation makes such a name (app.log.1); otherwise only content can tell (app-1.log, app.log.x).
    """

    stem: bytes
    shape: bytes
    numbers: tuple[int, ...]
    codec: str
    sure: bool

    @property
    def indexed(self) -> bool:
        return len(self.numbers) == 1 and self.numbers[0] <= _INDEX_MAX


def split_codec(name: bytes) -> tuple[bytes, str]:
    """A name without the ending of a compressed file, and which that was: (b"app.log.2", "gz")."""
    for ending, codec in CODECS.items():
        if name.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], codec
    return name, ""


def rotated(base: bytes, name: bytes) -> Rotated | None:
    """How name may come from rotating base; both are names in the same folder. None if it cannot, or is base."""
    if not name.startswith(base.rpartition(b".")[0] or base) or name == base:
        return None
    stem, codec = split_codec(name)
    if stem.startswith(base):
        added = stem[len(base) :]
        shape = added
        sure = added == b"" or _SURE.match(added) is not None
        if not sure and added[:1].isalnum():
            return None
    else:
        root, dot, ending = base.rpartition(b".")
        added = stem[len(root) : -len(ending) - 1] if dot and root and stem.endswith(b"." + ending) else b""
        if added[:1] not in (b".", b"-", b"_") or _DIGITS.search(added) is None:
            return None
        shape = b"<" + added
        sure = False
    numbers = tuple(int(digits) for digits in _DIGITS.findall(added))
    return Rotated(stem, _DIGITS.sub(b"#", shape), numbers, codec, sure)


def renamed(name: bytes) -> Rotated:
    """For a name that has nothing to do with the one the file had."""
    stem, codec = split_codec(name)
    return Rotated(stem, b"?", (), codec, sure=False)


def rotated_from(name: bytes) -> list[bytes]:
    """What name may come from by rotation, to be sure, the longest first: app.log.1.old is of app.log.1 and app.log."""
    stem, codec = split_codec(name)
    bases = [stem] if codec else []
    for cut in range(len(stem) - 1, 0, -1):
        if stem[cut : cut + 1] in (b"~", b".", b"_", b"-") and _SURE.match(stem, cut):
            bases.append(stem[:cut])
    return bases
