# SPDX-License-Identifier: GPL-3.0-or-later
"""All that shipper_runtime may say at WARNING or above, as its source has it: nothing is run.

A line is a format string, its arguments shown as "…". A function that hands its own parameter on to a logger says what
its callers give it, and so does whatever is made with Rarely(logger.warning).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("warning", "error", "critical", "exception")
# What ends a service with one line on stderr, but for settings, whose line names variable, value and remedy.
ENDING = ("StateError", "LedgerError")
_ARGUMENT = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?[sdriofx]")

# The scope is what stands around a call: functions, innermost first, then the module.
Scope = tuple[ast.AST, ...]


@dataclass(frozen=True)
class Line:
    """One line, and where it is said first."""

    text: str
    where: str


def shown(format_string: str) -> str:
    """As an entry of the guide has it."""
    return _ARGUMENT.sub("…", format_string).replace("%%", "%").strip()


def log_lines(package: Path) -> dict[str, Line]:
    """The lines of all modules. Raises ValueError for one whose text cannot be told from the source."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.glob("*.py"))}
    for path, tree in trees.items():
        for node in _disguised(tree):
            raise _untold("%s:%d" % (path.name, node.lineno), node)
    calls = [(path, call, scope) for path, tree in trees.items() for call, scope in _calls(tree, ())]
    sinks = _sinks(calls)
    found: dict[str, Line] = {}
    for path, call, scope in calls:
        where = "%s:%d" % (path.name, call.lineno)
        position = _position(call, sinks)
        texts = [] if position is None or len(call.args) <= position else _texts(call.args[position], scope, where)
        # A stream's name, and why it is read from there: what stands behind the colon is said where it is found.
        texts = [text for text in texts if text != "%s: %s"]
        texts += [
            "%s: " + text for each in call.keywords if each.arg == "why" for text in _texts(each.value, scope, where)
        ]
        for text in texts:
            found.setdefault(shown(text), Line(shown(text), where))
    return found


def _disguised(tree: ast.AST) -> Iterator[ast.expr]:
    """What has to do with a logger and is neither a call with its text in front nor in a Rarely that has a name."""
    plain: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_logger(node.func) and node.args:
            plain.add(node.func)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value.func) == "Rarely":
            plain.update(node.value.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in (*LEVELS, "warn", "log", "fatal"):
            owner = node.value
        elif isinstance(node, ast.Call) and _name(node.func) == "getattr":
            owner = node.args[0]
        else:
            continue
        if node not in plain and re.search(r"log(?:ger|ging)?\b", ast.unparse(owner).lower()):
            yield node


def _untold(where: str, node: ast.AST) -> ValueError:
    return ValueError("%s: what is said there cannot be told from the source: %s" % (where, ast.unparse(node)))


def _calls(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.Call, Scope]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)):
        scope = (node, *scope)
    if isinstance(node, ast.Call):
        yield node, scope
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, scope)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_logger(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr in LEVELS and "ogger" in ast.unparse(function.value)


def _position(call: ast.Call, sinks: dict[str, int]) -> int | None:
    """Which argument is what is said; None where nothing is."""
    if _is_logger(call.func):
        return 0
    return sinks.get(_name(call.func))


def _sinks(calls: list[tuple[Path, ast.Call, Scope]]) -> dict[str, int]:
    """The names of functions that say what they are given, and which argument that is."""
    sinks = dict.fromkeys(ENDING, 0)
    for _path, call, scope in calls:
        if _name(call.func) == "Rarely":
            for node in ast.walk(scope[-1]):
                if isinstance(node, ast.Assign) and node.value is call:
                    sinks.update((_name(target), 0) for target in node.targets)
    while True:
        before = len(sinks)
        for _path, call, scope in calls:
            position = _position(call, sinks)
            if position is None or len(call.args) <= position or not isinstance(call.args[position], ast.Name):
                continue
            parameters = _parameters(scope[0])
            if call.args[position].id in parameters:
                sinks[scope[0].name] = parameters.index(call.args[position].id)
        if len(sinks) == before:
            return sinks


def _parameters(function: ast.AST) -> list[str]:
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    return [argument.arg for argument in function.args.args if argument.arg != "self"]


def _texts(node: ast.expr, scope: Scope, where: str) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        # What Rarely itself hands on.
        return [] if node.value == "%s" else [node.value]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, scope, where), *_texts(node.orelse, scope, where)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _texts(node.left, scope, where)
    if isinstance(node, ast.Name):
        if node.id in _parameters(scope[0]):
            return []
        values = [value for part in scope for value in _assigned(node.id, part, scope[-1])]
        if values:
            return [text for value in values for text in _texts(value, scope, where)]
    if isinstance(node, ast.Call) and _name(node.func) == "str":
        return []
    raise _untold(where, node)


def _assigned(name: str, part: ast.AST, module: ast.AST) -> Iterator[ast.expr]:
    """The values that a name gets: by assignment, or by a loop over the items of the module's dictionary."""
    for node in ast.walk(part):
        if isinstance(node, ast.Assign) and name in [_name(target) for target in node.targets]:
            yield node.value
        if isinstance(node, ast.For) and name in [_name(each) for each in getattr(node.target, "elts", ())]:
            for table in ast.walk(module):
                if (
                    isinstance(table, ast.Assign)
                    and isinstance(table.value, ast.Dict)
                    and ast.unparse(node.iter) == "%s.items()" % _name(table.targets[0])
                ):
                    yield from table.value.values
