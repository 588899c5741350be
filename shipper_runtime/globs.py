# SPDX-License-Identifier: GPL-3.0-or-later
"""What SHIPPER_FILE may say, and the paths that its globs match."""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Sequence

from .confined import absolute
from .errors import SettingError
from .rotation import split_codec
from .siblings import NOT_THERE, Folders, reason
from .wire import SOURCE_MAX_BYTES

_VARIABLE = "SHIPPER_FILE"
_MAGIC = re.compile(rb"[*?[]")
_NAME_MAX = 255


def is_glob(path: bytes) -> bool:
    return _MAGIC.search(path) is not None


def fits(path: bytes) -> bool:
    """Whether the path can be named in a message."""
    return len(path) <= SOURCE_MAX_BYTES and all(len(name) <= _NAME_MAX for name in path.split(b"/"))


def check_patterns(patterns: Sequence[str]) -> list[bytes]:
    """The patterns as absolute paths, each once, in their order.

    Raises SettingError for a path that cannot be one, or is there and is not a regular file. What is missing or may not
    be looked at yet is fine.
    """
    checked: dict[bytes, None] = {}
    for pattern in patterns:
        if not pattern or "\0" in pattern:
            raise SettingError(_VARIABLE, pattern, "it is not a path; name a file or a glob")
        path = b"/" + os.fsencode(absolute(pattern, _VARIABLE)).lstrip(b"/")
        if not fits(path):
            raise SettingError(_VARIABLE, pattern, "the path is too long; %d bytes fit" % SOURCE_MAX_BYTES)
        if pattern.endswith("/"):
            raise SettingError(
                _VARIABLE, pattern, "it is a folder, not a file; name the files in it, for example %s*.log" % pattern
            )
        if not is_glob(path):
            try:
                mode = os.stat(path).st_mode
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise SettingError(_VARIABLE, pattern, "the path is too long") from None
            else:
                if stat.S_ISDIR(mode):
                    raise SettingError(
                        _VARIABLE,
                        pattern,
                        "it is a folder, not a file; name the files in it, for example %s/*.log" % pattern,
                    )
                if not stat.S_ISREG(mode):
                    raise SettingError(
                        _VARIABLE, pattern, "it is %s, not a file; only regular files are shipped" % kind(mode)
                    )
        checked[path] = None
    return list(checked)


def kind(mode: int) -> str:
    """What a file is that is not a regular one."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def matches(pattern: bytes, path: bytes) -> bool:
    """Whether a glob matches a path, whether or not there is such a file."""
    ours, theirs = pattern.split(b"/"), path.split(b"/")
    return _compressed(path) is False and _match(ours, theirs)


def _match(ours: list[bytes], theirs: list[bytes]) -> bool:
    if not ours or not theirs:
        return not ours and not theirs
    if ours[0] == b"**":
        return _match(ours[1:], theirs) or (not theirs[0].startswith(b".") and _match(ours, theirs[1:]))
    return _name_matches(ours[0], theirs[0]) and _match(ours[1:], theirs[1:])


def _name_matches(pattern: bytes, name: bytes) -> bool:
    hidden = name.startswith(b".") and not pattern.startswith(b".")
    return fnmatch.fnmatchcase(name, pattern) and not hidden


def _compressed(path: bytes) -> bool:
    return split_codec(path)[1] != ""


def expand(pattern: bytes, folders: Folders) -> list[bytes]:
    """The paths a glob matches, in the order of their names: * ? [...] in names, ** for any depth of folders.

    Hidden names only where the pattern begins with a dot, compressed files never.
    """
    found, several = [b"/"], False
    names = [name for name in pattern.split(b"/") if name]
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        if name == b"**":
            found = [folder for start in found for folder in folders.below(start)]
            if last:
                found = [
                    os.path.join(folder, each) for folder in found for each in folders.names(folder) if each[:1] != b"."
                ]
        elif is_glob(name):
            hidden = name.startswith(b".")
            found = [
                os.path.join(folder, each)
                for folder in found
                for each in fnmatch.filter(folders.names(folder), name)
                if hidden or not each.startswith(b".")
            ]
        else:
            found = [os.path.join(folder, name) for folder in found]
            if several:
                found = [path for path in found if folders.there(path)]
        several = several or is_glob(name)
    return [path for path in found if not _compressed(path)]


def why_nothing(pattern: bytes) -> str:
    """Why a glob matches nothing, as far as the folder tells in which its first wildcard is."""
    names = itertools.takewhile(lambda name: not is_glob(name), pattern.split(b"/"))
    try:
        os.listdir(b"/".join(names) or b"/")
    except OSError as error:
        return reason(error)
    return NOT_THERE
