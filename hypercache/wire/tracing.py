"""Traces: how one is begun, how each hop makes its own of it, and how they map onto W3C Trace Context.

The wire carries two ids of 16 bytes, a request's own and its parent's; W3C's context is a trace id of 16 bytes, the same on all
hops, and a span id of 8. So the second half of a request id is its span id, and the first is one half of the trace id: the higher
one where the span id is even, the lower one where it is odd. A child's span id differs from its parent's in that bit, and so a
request and its parent hold both halves between them: nothing beside the two ids needs to travel, on however many hops.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.limits import TRACE_MAX_HOPS, TRACEPARENT_MAX_BYTES
from hypercache.wire.extension import Trace, TraceLoopError

if TYPE_CHECKING:
    import random

_HALF: Final = 8
_NO_SPAN: Final = bytes(_HALF)
_SAMPLED: Final = 1
# Lower case alone; what a later version appends starts with a dash (W3C Trace Context, 3.2.2 and 3.2.4).
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(msgspec.Struct, frozen=True):
    """What a W3C ``traceparent`` says.

    Attributes:
        trace_id: 16 bytes, not all zero.
        span_id: 8 bytes, not all zero: the caller's span.
        sampled: whether the caller may have recorded it.
    """

    trace_id: bytes
    span_id: bytes
    sampled: bool


def parse_traceparent(text: str) -> TraceParent | None:
    """Return what a ``traceparent`` says, None where it is invalid and so counts as absent (W3C Trace Context, 3.2).

    A later version than 00 is read as 00, and may have more at its end.
    """
    if len(text) > TRACEPARENT_MAX_BYTES:
        return None
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, further = found.groups()
    if version == "ff" or (version == "00" and further is not None):
        return None
    parent = TraceParent(bytes.fromhex(trace_id), bytes.fromhex(span_id), bool(int(flags, 16) & _SAMPLED))
    return parent if any(parent.trace_id) and any(parent.span_id) else None


def format_traceparent(trace: Trace) -> str:
    """Return the ``traceparent``, version 00, of what a request calls in its turn. What is traced is sampled."""
    return f"00-{trace_id(trace).hex()}-{span_id(trace).hex()}-01"


def root(rng: random.Random, now_ns: int, parent: TraceParent | None = None) -> Trace:
    """Return the context of a request that enters the cluster here; it has passed no node yet.

    Args:
        rng: for the ids.
        now_ns: Unix nanoseconds.
        parent: the caller's span; without one a new trace begins.
    """
    whole = parent.trace_id if parent is not None else _drawn(rng, 2 * _HALF)
    span = _drawn(rng, _HALF)
    halves = (whole[:_HALF], whole[_HALF:])
    odd = span[-1] & 1
    return Trace(halves[odd] + span, halves[1 - odd] + (parent.span_id if parent is not None else _NO_SPAN), now_ns)


def child(trace: Trace, node_id: int, rng: random.Random, now_ns: int) -> Trace:
    """Return the context of a request that is sent on behalf of another.

    Args:
        trace: the other's.
        node_id: of the node that sends it: the next in the path.
        rng: for the ids.
        now_ns: Unix nanoseconds.

    Raises:
        TraceLoopError: the path would be longer than 16 nodes, or holds this one already.
    """
    check_path(trace, node_id)
    if len(trace.path) >= TRACE_MAX_HOPS:
        raise TraceLoopError(f"a trace that has passed {TRACE_MAX_HOPS} nodes goes no further")
    # The seven bytes that are drawn are not all zero, so that no span id is, whatever its last bit.
    last = rng.getrandbits(8) & ~1 | (trace.request_id[-1] & 1 ^ 1)
    own = _drawn(rng, _HALF - 1) + bytes((last,))
    return Trace(trace.parent_id[:_HALF] + own, trace.request_id, now_ns, (*trace.path, node_id))


def check_path(trace: Trace, node_id: int) -> None:
    """Refuse a trace that comes to a node for the second time.

    Raises:
        TraceLoopError: it does.
    """
    if node_id in trace.path:
        raise TraceLoopError(f"the trace has passed node {node_id} already")


def trace_id(trace: Trace) -> bytes:
    """Return W3C's trace id, 16 bytes: that of the root, on every hop."""
    own, other = trace.request_id[:_HALF], trace.parent_id[:_HALF]
    return other + own if trace.request_id[-1] & 1 else own + other


def span_id(trace: Trace) -> bytes:
    """Return W3C's span id of the request, 8 bytes."""
    return trace.request_id[_HALF:]


def parent_span_id(trace: Trace) -> bytes:
    """Return W3C's span id of the caller, 8 bytes; zeros where there is none."""
    return trace.parent_id[_HALF:]


def label(trace: Trace) -> str:
    """Return how log lines and error texts name a traced request."""
    return f"[trace {trace.request_id.hex()}]"


def _drawn(rng: random.Random, size: int) -> bytes:
    while True:
        drawn = rng.randbytes(size)
        if any(drawn):
            return drawn
