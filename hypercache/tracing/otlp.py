"""Spans to an OpenTelemetry collector, by OpenTelemetry's SDK (the extra ``otel``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from hypercache import __version__
from hypercache.errors import ConfigurationError
from hypercache.limits import TRACE_BATCH_MAX_COUNT, TRACE_FLUSH_SECONDS, TRACE_SPANS_MAX_COUNT
from hypercache.wire.tracing import parent_span_id, span_id, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from hypercache.tracing.spans import Span

_log = Logger()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NAME: Final = "hypercache"


class _GivenIds(IdGenerator):
    """Hands the SDK the ids that the wire has given already."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class OTLPExporter:
    """Hands spans to the SDK, whose own thread sends them.

    `TRACE_SPANS_MAX_COUNT` may wait there; a further one takes the place of the oldest.

    Args:
        endpoint: the collector's URL; empty: what OpenTelemetry's environment variables say, or its default.
        reactor: runs the node.
        node_id: the node's id.
        name: the node's name.
        sender: sends batches, in the SDK's thread; None for OTLP over HTTP.

    Raises:
        ConfigurationError: the endpoint is no URL.
    """

    def __init__(
        self, endpoint: str = "", *, reactor: Any, node_id: int, name: str = "", sender: SpanExporter | None = None
    ) -> None:
        parts = urlsplit(endpoint)
        if endpoint and not (parts.scheme in ("http", "https") and parts.hostname):
            raise ConfigurationError(f"tracing.endpoint = {endpoint!r} is no URL; write http://HOST:4318/v1/traces")
        self._endpoint = endpoint
        self._reactor = reactor
        self._sender = sender
        self._identity = {
            "service.name": _NAME,
            "service.version": __version__,
            "service.instance.id": str(node_id),
            "hypercache.node": name,
        }
        self._ids = _GivenIds()
        self._provider: TracerProvider | None = None
        self._closed = False

    def export(self, span: Span) -> None:
        """Queue a span; one whose ids a peer has made up, and W3C does not allow, is left out."""
        self._ids.trace_id = int.from_bytes(trace_id(span.trace))
        self._ids.span_id = int.from_bytes(span_id(span.trace))
        if self._closed or not (self._ids.trace_id and self._ids.span_id):
            return
        recorded = (
            self._started()
            .get_tracer(_NAME, __version__)
            .start_span(span.name, self._parent(span), kind=SpanKind.SERVER, attributes=span.attributes, start_time=span.start_ns)
        )
        if span.error:
            recorded.set_attribute("error.type", span.error)
            recorded.set_status(Status(StatusCode.ERROR))
        recorded.end(span.end_ns)

    def close(self) -> Deferred[None]:
        """Take no more; fires when what was queued is out, at the latest after `TRACE_FLUSH_SECONDS`."""
        provider = self._provider
        if self._closed or provider is None:
            self._closed = True
            return succeed(None)
        self._closed = True
        done: Deferred[None] = Deferred()

        def flush() -> None:
            try:
                provider.shutdown()
            finally:
                # Where that is too late, the Deferred takes no notice.
                self._reactor.callFromThread(done.callback, None)

        def too_slow(_result: Any, _seconds: float) -> None:
            _log.warn("the spans that are left are given up: the collector does not take them")

        # A thread of its own: one of the reactor's pool would hold up the end of the process for as long as the collector does.
        threading.Thread(target=flush, daemon=True).start()
        return done.addTimeout(TRACE_FLUSH_SECONDS, self._reactor, too_slow)

    def _started(self) -> TracerProvider:
        """Return the SDK's part; made for the first span, so that its thread belongs to the daemon and not to who starts it."""
        if self._provider is None:
            self._provider = TracerProvider(
                sampler=ALWAYS_ON, resource=Resource.create(self._identity), id_generator=self._ids, shutdown_on_exit=False
            )
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    self._sender or OTLPSpanExporter(endpoint=self._endpoint or None),
                    max_queue_size=TRACE_SPANS_MAX_COUNT,
                    max_export_batch_size=TRACE_BATCH_MAX_COUNT,
                )
            )
        return self._provider

    def _parent(self, span: Span) -> Context:
        parent = int.from_bytes(parent_span_id(span.trace))
        if not parent:
            return Context()
        context = SpanContext(self._ids.trace_id, parent, is_remote=True, trace_flags=_SAMPLED)
        return set_span_in_context(NonRecordingSpan(context), Context())
