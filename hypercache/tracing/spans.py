"""Spans, and where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from hypercache.errors import ConfigurationError
from hypercache.wire.tracing import parent_span_id, span_id, trace_id

if TYPE_CHECKING:
    from hypercache.config import TracingSettings
    from hypercache.wire.extension import Trace

_log = Logger()


class Span(msgspec.Struct, frozen=True):
    """One request, as the node saw it that handled it.

    Attributes:
        name: the command's, or the message type's.
        trace: the request's context: its ids, its path.
        start_ns: Unix nanoseconds.
        end_ns: Unix nanoseconds, never before the start.
        attributes: what else is known, by name; never a key, a value or another argument.
        error: in a word what went wrong; empty where nothing did.
    """

    name: str
    trace: Trace
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]
    error: str = ""


class Exporter(Protocol):
    """Takes spans away. It never waits: what it cannot take at once it drops."""

    def export(self, span: Span) -> None:
        """Take a span."""
        ...

    def close(self) -> Deferred[None]:
        """Take no more; fires when what was taken is out, or given up."""
        ...


class ConsoleExporter:
    """Writes each span as a line of the log."""

    def export(self, span: Span) -> None:
        """Log a span."""
        shown = "".join(f" {name}={value}" for name, value in span.attributes.items())
        _log.info(
            "span {name} {milliseconds:.3f} ms trace={trace_id} span={span_id} parent={parent_id}{shown}{error}",
            name=span.name,
            milliseconds=(span.end_ns - span.start_ns) / 1e6,
            trace_id=trace_id(span.trace).hex(),
            span_id=span_id(span.trace).hex(),
            parent_id=parent_span_id(span.trace).hex(),
            shown=shown,
            error=f" error={span.error}" if span.error else "",
        )

    def close(self) -> Deferred[None]:
        """Do nothing: lines are out at once."""
        return succeed(None)


def make_exporter(settings: TracingSettings, *, reactor: Any, node_id: int, name: str = "") -> Exporter | None:
    """Return where spans go by the settings; None for nowhere.

    Args:
        settings: which exporter, and its endpoint.
        reactor: runs the node.
        node_id: the node's id, by which spans say who made them.
        name: the node's name.

    Raises:
        ConfigurationError: OpenTelemetry's SDK is needed and not installed, or the endpoint is no address.
    """
    if settings.export == "console":
        return ConsoleExporter()
    if settings.export == "otlp":
        try:
            # An extra: whoever does not export pays nothing for it.
            from hypercache.tracing.otlp import OTLPExporter
        except ImportError as error:
            raise ConfigurationError(
                f'tracing.export = "otlp" needs OpenTelemetry: pip install hypercache[otel] ({error})'
            ) from None
        return OTLPExporter(settings.endpoint, reactor=reactor, node_id=node_id, name=name)
    return None
