# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters are there before their first event: Prometheus sees no increase in one that appears with it."""

from __future__ import annotations

import ast

from shipper_runtime import errors, meters, reader, wire
from shipper_runtime.meters import REFUSED, REJECTED, ConsumerMeters, ProducerMeters
from tests.support import ROOT


def lines(registry: object) -> list[str]:
    return registry.exposition().decode().splitlines()  # type: ignore[attr-defined]


def test_a_consumer_of_streams_counts_from_the_start_for_each_partition_that_it_is_to_read() -> None:
    """Whether or not it reads them already: so one can see which it does not."""
    shown = lines(ConsumerMeters(dict, int, (3, 5), durable=True).registry)
    for partition in "35":
        for name in ("committed_bytes", "committed_messages", "duplicate_bytes", "hole_bytes"):
            assert 'shipper_%s_total{partition="%s"} 0' % (name, partition) in shown
    assert not [line for line in shown if line.startswith("shipper_dropped_messages_total{")]


def test_a_consumer_without_streams_counts_what_it_drops_from_the_start() -> None:
    shown = lines(ConsumerMeters(dict, int, (3,)).registry)
    assert 'shipper_dropped_messages_total{partition="3"} 0' in shown
    assert not [line for line in shown if line.startswith("shipper_committed_bytes_total{")]


def test_every_reason_of_a_refusal_is_there_from_the_start() -> None:
    """Whatever the broker may answer."""
    shown = lines(ProducerMeters(dict, int).registry)
    for why in REFUSED:
        assert 'shipper_refused_total{reason="%s"} 0' % why in shown
    for kind in (errors.NoResponders, errors.PublishRefused, errors.NoAnswer, errors.ApiError):
        assert meters.reason(kind.__new__(kind) if kind is not errors.ApiError else api_error(0)) in REFUSED
    assert {meters.reason(api_error(code)) for code in (meters.STREAM_FULL, *meters.NO_ROOM)} == {"full", "no_room"}


def api_error(code: int) -> errors.ApiError:
    error = errors.ApiError.__new__(errors.ApiError)
    error.err_code = code
    return error


def test_every_reason_of_a_rejection_is_there_from_the_start() -> None:
    """All that the source says where it raises WireError."""
    reasons: set[str] = set()
    for path in sorted((ROOT / "shipper_runtime").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "WireError":
                reasons |= said(node.args[0])
    assert len(reasons) > 8
    assert reasons == set(REJECTED)
    shown = lines(ConsumerMeters(dict, int).registry)
    for why in REJECTED:
        assert 'shipper_rejected_messages_total{reason="%s"} 0' % why in shown


def said(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    code = ast.unparse(argument)
    if code == "'header missing: %s' % missing.args[0]":
        return {"header missing: " + name for name in (wire.SOURCE, wire.LIFE, wire.HEAD, wire.BEGIN, wire.END)}
    return {str(eval(code, {**vars(reader), **vars(wire)}))}
