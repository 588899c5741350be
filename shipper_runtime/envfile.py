# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the files that systemd's EnvironmentFile= reads, to the same values. Pure.

The states are those of systemd's src/basic/env-file.c; systemd.exec(5) describes the syntax: a variable a line, # and
; begin comments, '…' is literal, "…" knows \\" \\\\ \\$ \\`, a backslash at a line's end continues it, and nothing is
expanded. What systemd passes over, or its versions read differently, is refused.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BLANK = " \t\r"
_ESCAPED_IN_QUOTES = '"\\`$'


class EnvFileError(ValueError):
    """What is wrong, with the number of its line."""


def parse(text: str) -> dict[str, str]:
    """The variables of an environment file's text; of one that is set twice, the last. Raises EnvFileError."""
    variables: dict[str, str] = {}
    state, key, value, kept, begun, line = "pre-key", "", "", 0, 1, 1
    for char in text + "\n":
        # But for quotes, a carriage return ends a line too; a backslash does not continue CR LF.
        end = char in "\r\n"
        if char == "\0":
            raise EnvFileError("line %d: it holds a NUL" % line)
        if state == "pre-key":
            if char in "#;":
                state = "comment"
            elif not end and char not in _BLANK:
                state, key, begun = "key", char, line
        elif state == "key":
            if end:
                # Without the text, which may hold a password.
                raise EnvFileError("line %d: it is not NAME=VALUE" % line)
            if char == "=":
                state, value, kept = "pre-value", "", 0
            else:
                key += char
        elif state == "comment":
            if end:
                state = "pre-key"
            elif char == "\\":
                state = "comment-escape"
        elif state == "comment-escape":
            if end:
                raise EnvFileError("line %d: a comment cannot end with a backslash" % line)
            state = "comment"
        elif state == "single":
            if char == "'":
                state, kept = "pre-value", len(value)
            else:
                value += char
        elif state == "double":
            if char == '"':
                state, kept = "pre-value", len(value)
            elif char == "\\":
                state = "double-escape"
            else:
                value += char
        elif state == "double-escape":
            state = "double"
            if char in _ESCAPED_IN_QUOTES:
                value += char
            elif char != "\n":
                value += "\\" + char
        elif state == "escape":
            state = "value"
            if not end:
                value += char
                kept = len(value)
        elif end:  # of "pre-value" or "value"
            state = "pre-key"
            variables[_name(key, begun)] = value[:kept]
        elif state == "pre-value" and char in "'\"":
            state = "single" if char == "'" else "double"
        elif char == "\\":
            state, kept = "escape", len(value)
        elif state == "value" or char not in _BLANK:
            state = "value"
            value += char
            if char not in _BLANK:
                kept = len(value)
        line += char == "\n"
    if state in ("single", "double", "double-escape"):
        raise EnvFileError("line %d: the quote is not closed" % begun)
    if state == "value":
        # A backslash was the last byte of all.
        variables[_name(key, begun)] = value[:kept]
    return variables


def _name(key: str, line: int) -> str:
    name = key.rstrip(_BLANK)
    if _NAME.match(name) is None:
        raise EnvFileError("line %d: what stands before the = is not a variable's name" % line)
    return name
