"""Contexts: roots, children, loops, and W3C's traceparent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.limits import TRACE_MAX_HOPS, TRACEPARENT_MAX_BYTES
from hypercache.wire import ErrorCode, Extension
from hypercache.wire.extension import Trace, TraceLoopError, decode_extended, encode_extension
from hypercache.wire.tracing import (
    TraceParent,
    check_path,
    child,
    format_traceparent,
    label,
    parent_span_id,
    parse_traceparent,
    root,
    span_id,
    trace_id,
)
from tests.tracing.recording import SPAN_ID, TRACE_ID, TRACEPARENT

NOW_NS = 1_800_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (TRACEPARENT, True),
        (f"00-{TRACE_ID}-{SPAN_ID}-00", False),
        # Of the flags only the lowest bit says that it is sampled.
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", True),
        (f"00-{TRACE_ID}-{SPAN_ID}-fe", False),
        (f"00-{TRACE_ID}-{SPAN_ID}-03", True),
        # A later version is read as this one, with or without more.
        (f"01-{TRACE_ID}-{SPAN_ID}-01", True),
        (f"cc-{TRACE_ID}-{SPAN_ID}-00", False),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings", True),
        (f"fe-{TRACE_ID}-{SPAN_ID}-01-", True),
    ],
)
def test_valid_traceparents_are_read(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == TraceParent(bytes.fromhex(TRACE_ID), bytes.fromhex(SPAN_ID), sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID.upper()}-01",
        f"0A-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0A",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}0-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID[:-1]}-01",
        f"00-{TRACE_ID}-{SPAN_ID}0-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"000-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-011",
        # Version 00 has nothing behind the flags, and a later one a dash first.
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01-",
        f"01-{TRACE_ID}-{SPAN_ID}-01.more",
        f"00_{TRACE_ID}_{SPAN_ID}_01",
        f" {TRACEPARENT}",
        f"{TRACEPARENT} ",
        f"{TRACEPARENT}\n",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        # Digits of another script are digits to Python.
        f"00-{TRACE_ID[:-1]}٣-{SPAN_ID}-01",
        f"01-{TRACE_ID}-{SPAN_ID}-01-{'x' * TRACEPARENT_MAX_BYTES}",
    ],
)
def test_invalid_traceparents_count_as_absent(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 1 << 32), st.integers(0, 16))
def test_the_trace_id_is_the_callers_on_every_hop(whole: bytes, span: bytes, seed: int, hops: int) -> None:
    if not (any(whole) and any(span)):
        return
    rng = random.Random(seed)
    trace = root(rng, NOW_NS, TraceParent(whole, span, sampled=True))
    assert parent_span_id(trace) == span
    for node in range(hops):
        assert trace_id(trace) == whole
        one = child(trace, node, rng, NOW_NS)
        assert parent_span_id(one) == span_id(trace)
        assert any(span_id(one))
        trace = one
    assert trace_id(trace) == whole
    assert format_traceparent(trace) == f"00-{whole.hex()}-{span_id(trace).hex()}-01"


def test_a_trace_that_begins_here_has_no_parent_and_keeps_its_id() -> None:
    rng = random.Random(1)
    trace = root(rng, NOW_NS)
    assert parent_span_id(trace) == bytes(8)
    assert (trace.timestamp, trace.path) == (NOW_NS, ())
    assert trace_id(child(child(trace, 1, rng, NOW_NS), 2, rng, NOW_NS)) == trace_id(trace)
    assert trace_id(root(rng, NOW_NS)) != trace_id(trace)


def test_a_child_has_an_id_of_its_own_the_requests_as_its_parent_and_one_node_more() -> None:
    rng = random.Random(2)
    trace = root(rng, NOW_NS)
    first, second = child(trace, 5, rng, NOW_NS + 1), child(trace, 5, rng, NOW_NS + 2)
    assert first.parent_id == second.parent_id == trace.request_id
    assert len({trace.request_id, first.request_id, second.request_id}) == 3
    assert first.path == (5,)
    assert first.timestamp == NOW_NS + 1
    assert child(first, 6, rng, NOW_NS).path == (5, 6)


def test_a_seventeenth_hop_and_a_node_for_the_second_time_are_refused() -> None:
    rng = random.Random(3)
    trace = root(rng, NOW_NS)
    for node in range(TRACE_MAX_HOPS):
        trace = child(trace, node, rng, NOW_NS)
    with pytest.raises(TraceLoopError) as caught:
        child(trace, TRACE_MAX_HOPS, rng, NOW_NS)
    assert caught.value.code == ErrorCode.MALFORMED_MESSAGE
    short = child(root(rng, NOW_NS), 5, rng, NOW_NS)
    with pytest.raises(TraceLoopError):
        child(short, 5, rng, NOW_NS)
    with pytest.raises(TraceLoopError):
        check_path(short, 5)
    check_path(short, 6)


def test_the_longest_path_travels() -> None:
    rng = random.Random(4)
    trace = root(rng, NOW_NS)
    for node in range(TRACE_MAX_HOPS):
        trace = child(trace, 1 << 63 | node, rng, NOW_NS)
    extension, body = decode_extended(encode_extension(Extension(1, trace=trace), b"body"), 1 << 20)
    assert (extension.trace, body) == (trace, b"body")


def test_a_request_that_others_made_up_gets_a_trace_id_that_holds_from_there() -> None:
    # The ids of a peer that knows nothing of the halves.
    foreign = Trace(bytes.fromhex("00112233445566778899aabbccddeeff"), bytes(16), NOW_NS)
    rng = random.Random(5)
    first = child(foreign, 1, rng, NOW_NS)
    assert first.parent_id == foreign.request_id
    assert trace_id(foreign) == trace_id(first) == trace_id(child(first, 2, rng, NOW_NS))


def test_a_label_shows_the_request_id() -> None:
    trace = Trace(bytes(range(16)), bytes(16), NOW_NS)
    assert label(trace) == "[trace 000102030405060708090a0b0c0d0e0f]"
