# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts what was read from a file into blocks of whole lines: pure."""

from __future__ import annotations

from dataclasses import dataclass

from .wire import FINISHED, MORE, Span


@dataclass(frozen=True)
class Block:
    """Bytes of one life of one source, frozen until they are acknowledged.

    The payload is without its last newline, unless the span is marked partial. It is a view, for a copy of half a MiB
    costs as much as reading it did.
    """

    span: Span
    payload: memoryview


@dataclass(frozen=True)
class Cut:
    """What a block takes of the data: payload is data[start:start + len(payload)], length what the file moves on by."""

    payload: memoryview
    length: int
    partial: str | None = None


def cut(data: bytes, start: int, limit: int, hard_limit: int, finished: bool = False) -> Cut | None:
    """The next block of data[start:], or None while its line is not complete.

    As many whole lines as fit into limit bytes, newlines counted; a single longer line comes whole up to hard_limit
    bytes without its newline, and in pieces of hard_limit beyond, the last of which has the newline. With less than
    hard_limit + 1 bytes behind start, data must be all there is. finished: a last line without newline gets none.
    """
    view = memoryview(data)
    newline = data.rfind(b"\n", start, start + limit)
    if newline < 0:
        newline = data.find(b"\n", start + limit, start + hard_limit + 1)
    if newline >= 0:
        return Cut(view[start:newline], newline + 1 - start)
    available = len(data) - start
    if available > hard_limit:
        return Cut(view[start : start + hard_limit], hard_limit, MORE)
    if finished and available > 0:
        return Cut(view[start:], available, FINISHED)
    return None
