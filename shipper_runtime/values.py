# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator's variables cannot hold, by the parsers of the program that reads it later. Pure; used on the
controller only, so that it is said before anything is changed, by the name that the operator wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .errors import SettingError
from .output import parse_output
from .servers import parse_servers, with_credentials
from .settings import (
    group_name,
    parse_duration,
    parse_listen,
    parse_size,
    stream_limits,
    stream_prefix,
    subject_prefix,
)

FILES = "producer_files"
OUTPUT, ROTATE, COMPRESS = "consumer_output", "consumer_rotate", ("consumer_compress", "shipper_compress")
AUTH = "shipper_auth"
URLS = ("producer_nats_url", "consumer_nats_url", "shipper_nats_url")
MAX_AGE, DUPLICATES = "shipper_stream_max_age", "shipper_stream_duplicates"
_PORT_MOST = 65535

Check = Callable[[str], object]


def _setting(read: Callable[[Mapping[str, str]], object], name: str) -> Check:
    def check(text: str) -> object:
        return read({name: text})

    return check


def _duration(text: str) -> object:
    return parse_duration("", text)


def _listen(text: str) -> None:
    parse_listen("", text)


def _path(text: str) -> None:
    if not text.startswith("/") or "\0" in text or "\n" in text:
        raise SettingError("", text, "use a path that begins with /")


def _file(text: str) -> None:
    _path(text)
    if ":" in text:
        raise SettingError("", text, "a path cannot hold a colon; give each path a line of its own")


def _port(text: str) -> None:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _PORT_MOST):
        raise SettingError("", text, "use a port from 1 to %d" % _PORT_MOST)


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(URLS, parse_servers),
    **{
        "%s_%s" % (each, name): check
        for each in ("shipper", "producer", "consumer")
        for name, check in (
            ("subject", _setting(subject_prefix, "SHIPPER_SUBJECT")),
            ("stream", _setting(stream_prefix, "SHIPPER_STREAM")),
            ("jitter", _duration),
            ("metrics", _listen),
        )
    },
    "shipper_group": _setting(group_name, "SHIPPER_GROUP"),
    "consumer_group": _setting(group_name, "SHIPPER_GROUP"),
    "consumer_max_age": _duration,
    ROTATE: _duration,
    "consumer_directory": _path,
    "producer_state": _path,
    "producer_rate": lambda text: parse_size("", text, "10MB"),
    "shipper_stream_max_bytes": _setting(stream_limits, "SHIPPER_STREAM_MAX_BYTES"),
    "shipper_stream_replicas": _setting(stream_limits, "SHIPPER_STREAM_REPLICAS"),
    MAX_AGE: lambda text: None if text == "0" else _duration(text),
    DUPLICATES: _duration,
    "broker_store": _path,
    "broker_port": _port,
    "broker_cluster_port": _port,
    "broker_monitoring": _listen,
}
# What problem_together() looks at.
TOGETHER = (AUTH, *URLS, OUTPUT, ROTATE, *COMPRESS, MAX_AGE, DUPLICATES)
NAMES = frozenset((*_CHECKS, FILES, *TOGETHER))


def problem(name: str, value: Any) -> tuple[str, str] | None:
    """What of a variable's value is wrong, without secrets, and the remedy; None where it is fine. An empty one counts
    as not set."""
    if value is None or value == "":
        return None
    try:
        if name == FILES and isinstance(value, (list, tuple)):
            for each in value:
                _file(str(each or ""))
        elif name in _CHECKS:
            _CHECKS[name](str(value))
    except SettingError as error:
        return error.value or "", error.remedy
    return None


def problem_together(variables: Mapping[str, Any], output: str, rotate: str) -> tuple[str, str, str] | None:
    """What is wrong with variables that are each fine: the one to change, its value, and the remedy. output and rotate
    hold where a host says nothing."""

    def said(*names: str) -> str:
        return next((str(variables[name]) for name in names if variables.get(name) not in (None, "")), "")

    name = ""
    try:
        for name in URLS if said(AUTH) == "password" else ():
            with_credentials(said(name) or "localhost", "host", "password", tls=False)
        if said(OUTPUT) or said(ROTATE):
            name = OUTPUT if said(OUTPUT) else ROTATE
            seconds = parse_duration("", said(ROTATE) or rotate)
            parse_output(said(OUTPUT) or output, seconds, said(*COMPRESS) not in ("", "none"))
        if said(MAX_AGE) or said(DUPLICATES):
            name = DUPLICATES
            stream_limits({each.upper(): said(each) for each in (MAX_AGE, DUPLICATES)})
    except SettingError as error:
        shown = said(name) if name in (OUTPUT, ROTATE) else error.value or ""
        return name, shown, error.remedy.replace("SHIPPER_STREAM_MAX_AGE", MAX_AGE).replace("SHIPPER_ROTATE", ROTATE)
    return None
