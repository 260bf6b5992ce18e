"""Spans by OpenTelemetry's SDK, and what happens without it."""

from __future__ import annotations

import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.task import Clock

from hypercache.config import TracingSettings
from hypercache.errors import ConfigurationError
from hypercache.limits import TRACE_FLUSH_SECONDS, TRACE_SPANS_MAX_COUNT
from hypercache.tracing import Span, make_exporter
from hypercache.wire.extension import Trace
from hypercache.wire.tracing import parse_traceparent, root
from tests.tracing.recording import NODE_ID, SPAN_ID, TRACE_ID, TRACEPARENT, RecordingTracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypercache.tracing.otlp import OTLPExporter


class ThreadedClock(Clock):
    """A reactor whose time is set by hand, and that other threads may call."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self._calls: list[Any] = []

    def callFromThread(self, function: Any, *args: Any) -> None:
        self._calls.append((function, args))
        self.arrived.set()

    def take(self) -> None:
        assert self.arrived.wait(10)
        for function, args in self._calls:
            function(*args)
        self._calls.clear()


@pytest.fixture
def sdk() -> Any:
    return pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


def exporter_to(sender: Any, clock: Any) -> OTLPExporter:
    from hypercache.tracing.otlp import OTLPExporter

    return OTLPExporter(reactor=clock, node_id=NODE_ID, name="one", sender=sender)


def a_span(**fields: Any) -> Span:
    tracer = RecordingTracer()
    values: dict[str, Any] = {"name": "set", "trace": tracer.root(), "start_ns": 10, "end_ns": 20, "attributes": {}} | fields
    return Span(**values)


def flushed(exporter: Any, clock: ThreadedClock) -> None:
    done = exporter.close()
    clock.take()
    assert done.called
    assert clock.getDelayedCalls() == []


def test_spans_keep_their_ids_times_attributes_and_errors(sdk: Any) -> None:
    clock, memory = ThreadedClock(), sdk.InMemorySpanExporter()
    exporter = exporter_to(memory, clock)
    tracer = RecordingTracer()
    mine = tracer.accept(TRACEPARENT.encode())
    assert mine is not None
    theirs = tracer.child(mine)
    attributes: dict[str, str | int] = {"hypercache.peer": str((1 << 64) - 1), "hypercache.hops": 1}
    exporter.export(Span("set", mine, 1_000, 2_500, attributes))
    exporter.export(Span("ReplicateData", theirs, 1_500, 2_000, {}, "status 2"))
    exporter.export(a_span())
    flushed(exporter, clock)
    one, two, three = memory.get_finished_spans()
    assert f"{one.context.trace_id:032x}" == f"{two.context.trace_id:032x}" == TRACE_ID
    assert f"{one.parent.span_id:016x}" == SPAN_ID
    assert one.context.span_id == two.parent.span_id == int.from_bytes(mine.request_id[8:])
    assert two.context.span_id == int.from_bytes(theirs.request_id[8:])
    assert three.parent is None
    assert (one.name, one.start_time, one.end_time) == ("set", 1_000, 2_500)
    assert dict(one.attributes) == attributes
    assert (one.status.is_ok, two.status.is_ok) == (True, False)
    assert two.attributes["error.type"] == "status 2"
    assert one.resource.attributes["service.name"] == "hypercache"
    assert one.resource.attributes["service.instance.id"] == str(NODE_ID)


def test_an_application_span_around_the_reactor_is_nobodys_parent(sdk: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    clock, memory = ThreadedClock(), sdk.InMemorySpanExporter()
    exporter = exporter_to(memory, clock)
    with TracerProvider(shutdown_on_exit=False).get_tracer("application").start_as_current_span("outer"):
        exporter.export(a_span())
    flushed(exporter, clock)
    (span,) = memory.get_finished_spans()
    assert span.parent is None


@pytest.mark.parametrize("ids", [(bytes(8) + b"\1" * 8, bytes(16)), (b"\1" * 8 + bytes(8), bytes(16))])
def test_ids_that_w3c_does_not_allow_are_left_out(sdk: Any, ids: tuple[bytes, bytes]) -> None:
    clock, memory = ThreadedClock(), sdk.InMemorySpanExporter()
    exporter = exporter_to(memory, clock)
    exporter.export(a_span(trace=Trace(*ids, 1)))
    exporter.export(a_span())
    flushed(exporter, clock)
    assert len(memory.get_finished_spans()) == 1


class Stuck:
    """A collector that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.sizes: list[int] = []

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        self.entered.set()
        assert self.release.wait(10)
        self.sizes.append(len(spans))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    collector = Stuck()
    yield collector
    collector.release.set()


def test_a_collector_that_is_stuck_holds_up_nothing_and_what_waits_is_bounded(sdk: Any, stuck: Stuck) -> None:
    clock = ThreadedClock()
    exporter = exporter_to(stuck, clock)
    # Enough for a batch, which is then under way and stuck; were any of these calls to wait for it, it would never be let go.
    for _ in range(2 * TRACE_SPANS_MAX_COUNT):
        exporter.export(a_span())
    assert stuck.entered.wait(10)
    for _ in range(2 * TRACE_SPANS_MAX_COUNT):
        exporter.export(a_span())
    stuck.release.set()
    flushed(exporter, clock)
    assert TRACE_SPANS_MAX_COUNT <= sum(stuck.sizes) <= 2 * TRACE_SPANS_MAX_COUNT


def test_the_end_waits_for_a_stuck_collector_for_a_bounded_time(sdk: Any, stuck: Stuck) -> None:
    clock = ThreadedClock()
    exporter = exporter_to(stuck, clock)
    exporter.export(a_span())
    done = exporter.close()
    assert stuck.entered.wait(10)
    clock.advance(TRACE_FLUSH_SECONDS - 0.1)
    assert not done.called
    clock.advance(0.2)
    assert done.called
    results: list[Any] = []
    done.addBoth(results.append)
    assert results == [None]
    stuck.release.set()
    clock.take()
    # What comes later is dropped, and closing again is no more work.
    exporter.export(a_span())
    assert exporter.close().called


def test_a_node_that_traced_nothing_starts_no_thread(sdk: Any) -> None:
    before = threading.active_count()
    exporter = exporter_to(sdk.InMemorySpanExporter(), ThreadedClock())
    assert exporter.close().called
    exporter.export(a_span())
    assert threading.active_count() == before


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    bodies: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


def test_spans_arrive_at_a_collector_over_http(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    bodies: list[tuple[str, bytes]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Own", (Collector,), {"bodies": bodies}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        clock = ThreadedClock()
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        settings = TracingSettings(export="otlp", endpoint=endpoint)
        exporter = make_exporter(settings, reactor=clock, node_id=NODE_ID, name="one")
        assert exporter is not None
        parent = parse_traceparent(TRACEPARENT)
        exporter.export(a_span(trace=root(random.Random(1), 1, parent)))
        flushed(exporter, clock)
    finally:
        server.shutdown()
        server.server_close()
    ((path, body),) = bodies
    assert path == "/v1/traces"
    assert bytes.fromhex(TRACE_ID) in body
    assert b"service.instance.id" in body


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "grpc://host:4317", "http://", "/v1/traces"])
def test_an_endpoint_that_is_no_url_is_a_configuration_error(sdk: Any, endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tracing\.endpoint"):
        make_exporter(TracingSettings(export="otlp", endpoint=endpoint), reactor=Clock(), node_id=NODE_ID)


@pytest.mark.parametrize("missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"])
def test_without_the_sdk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delitem(sys.modules, "hypercache.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install hypercache\[otel\]"):
        make_exporter(TracingSettings(export="otlp"), reactor=Clock(), node_id=NODE_ID)
    assert make_exporter(TracingSettings(export="console"), reactor=Clock(), node_id=NODE_ID) is not None
