"""Which traced request is being handled, and how log lines say so."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import ILogObserver
from zope.interface import provider

from hypercache.wire.tracing import label, trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercache.wire.extension import Trace

# Entered for traced requests alone. Twisted's coroutines and inlineCallbacks keep it over their waits.
_CURRENT: Final[ContextVar[Trace | None]] = ContextVar("hypercache_trace", default=None)


def current_trace() -> Trace | None:
    """Return the context of the traced request that is being handled, None where none is."""
    return _CURRENT.get()


@contextmanager
def handling(trace: Trace) -> Iterator[None]:
    """Handle a traced request: what is logged within carries its id."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@provider(ILogObserver)
def mark_traced(event: dict[str, Any]) -> None:
    """Mark a log event with the traced request that it comes from.

    An observer for ``twisted.logger.globalLogPublisher``, to be added before those that write: all of them see the same event. The
    text gets ``[trace ID]`` at its end; ``request_id`` and ``trace_id`` are for observers that write structure.
    """
    trace = _CURRENT.get()
    if trace is None or "request_id" in event:
        return
    event["request_id"] = trace.request_id.hex()
    event["trace_id"] = trace_id(trace).hex()
    text = event.get("log_format")
    if text is not None:
        event["log_format"] = f"{text} {label(trace)}"
