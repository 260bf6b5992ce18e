"""Spans of peers' messages, log lines that carry the request's id, and the console."""

from __future__ import annotations

import io
import random
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import LogBeginner, Logger, LogPublisher, globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure

from hypercache.config import TracingSettings
from hypercache.errors import RequestError
from hypercache.limits import TRACE_MAX_HOPS
from hypercache.tracing import Span, Tracer, current_trace, make_exporter, mark_traced
from hypercache.tracing.marking import handling
from hypercache.wire import ErrorCode, Extension, Operation, Status
from hypercache.wire.extension import Trace, TraceLoopError
from hypercache.wire.messages import GenericError, Heartbeat, HeartbeatResponse, ReplicateData, ReplicateResponse
from hypercache.wire.tracing import label, parent_span_id, span_id, trace_id
from tests.tracing.recording import NODE_ID, RecordingTracer

PEER = 3
BEAT = Heartbeat(PEER, 1, 1)


def received(trace: Trace | None, *, member: bool = True) -> Any:
    """Return the context of a message, as far as a tracer looks at it."""
    link = SimpleNamespace(address="10.0.0.3:7379", node_id=PEER, member=member)
    return SimpleNamespace(link=link, trace=trace, node_id=PEER, member=member, extension=Extension(1, trace=trace))


def sent_by_a_peer() -> Trace:
    peer = RecordingTracer(node_id=PEER, seed=9)
    return peer.child(peer.root())


# Serving


def test_a_traced_message_is_handled_within_its_trace_and_has_a_span() -> None:
    tracer, trace = RecordingTracer(), sent_by_a_peer()
    seen: list[Trace | None] = []

    def handle(context: Any, message: Heartbeat) -> HeartbeatResponse:
        seen.append(current_trace())
        return HeartbeatResponse(1, Status.SUCCESS)

    assert tracer.serve(handle, received(trace), BEAT) == HeartbeatResponse(1, Status.SUCCESS)
    assert seen == [trace]
    assert current_trace() is None
    (span,) = tracer.spans
    assert (span.name, span.trace, span.error) == ("Heartbeat", trace, "")
    assert span.attributes == {
        "hypercache.message.type": 0x32,
        "hypercache.peer": str(PEER),
        "network.peer.address": "10.0.0.3:7379",
        "hypercache.node": str(NODE_ID),
        "hypercache.hops": 1,
    }


def test_the_span_of_a_late_answer_ends_with_the_answer() -> None:
    tracer = RecordingTracer()
    answer: Deferred[Any] = Deferred()
    given = tracer.serve(lambda context, message: answer, received(sent_by_a_peer()), BEAT)
    assert given is answer
    assert tracer.spans == []
    tracer.now += 0.5
    answer.callback("the answer")
    (span,) = tracer.spans
    assert span.end_ns - span.start_ns == pytest.approx(500_000_000, abs=1000)
    results: list[Any] = []
    given.addCallback(results.append)
    assert results == ["the answer"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (GenericError(ErrorCode.INTERNAL_ERROR, 0, "the-secret"), "0x0007"),
        (ReplicateResponse(Status.RETRY_LATER, 0), "status 2"),
        (ReplicateResponse(Status.SUCCESS, 0), ""),
        (None, ""),
    ],
)
def test_a_span_says_what_went_wrong(answer: Any, error: str) -> None:
    tracer = RecordingTracer()
    tracer.serve(lambda context, message: answer, received(sent_by_a_peer()), BEAT)
    assert [span.error for span in tracer.spans] == [error]


def test_a_handlers_failure_is_recorded_by_its_kind_and_passed_on() -> None:
    tracer, trace = RecordingTracer(), sent_by_a_peer()

    def broken(context: Any, message: Any) -> None:
        raise RuntimeError("the-secret")

    with pytest.raises(RuntimeError):
        tracer.serve(broken, received(trace), BEAT)
    assert current_trace() is None
    late: Deferred[Any] = Deferred()
    tracer.serve(lambda context, message: late, received(trace), BEAT)
    failures: list[Failure] = []
    late.errback(RequestError("the-secret"))
    late.addErrback(failures.append)
    assert failures[0].check(RequestError)
    assert [span.error for span in tracer.spans] == ["RuntimeError", "RequestError"]
    assert "secret" not in repr(tracer.spans)


def test_a_request_that_has_passed_this_node_is_refused_before_it_is_handled() -> None:
    tracer = RecordingTracer()
    looped = tracer.child(tracer.root())
    handled: list[Any] = []
    with pytest.raises(TraceLoopError):
        tracer.serve(lambda context, message: handled.append(message), received(looped), BEAT)
    assert (handled, tracer.spans, tracer.loops) == ([], [], 1)
    tracer.admit(sent_by_a_peer())
    assert tracer.loops == 1


def test_a_handler_can_send_on_until_the_path_is_full() -> None:
    trace = RecordingTracer(node_id=0).root()
    for node in range(TRACE_MAX_HOPS):
        trace = RecordingTracer(node_id=node, seed=node).child(trace)
    assert trace.path == tuple(range(TRACE_MAX_HOPS))
    with pytest.raises(TraceLoopError):
        RecordingTracer(node_id=99).child(trace)


def test_a_change_that_enters_the_cluster_here_is_remembered_for_the_members() -> None:
    tracer, trace = RecordingTracer(), sent_by_a_peer()
    change = ReplicateData(Operation.SET, 0, "", b"k", b"v")

    def handle(context: Any, message: Any) -> ReplicateResponse:
        return ReplicateResponse(Status.SUCCESS, 0)

    tracer.serve(handle, received(trace, member=False), change)
    assert tracer.changed.held == {}
    tracer.replicates = True
    tracer.serve(handle, received(trace, member=True), change)
    assert tracer.changed.held == {}
    tracer.serve(handle, received(trace, member=False), change)
    assert tracer.changed.held == {("default", b"k"): trace}


# Log lines


@pytest.fixture
def logged() -> Any:
    """Return a publisher that marks and then writes, and what it has written."""
    publisher, written = LogPublisher(), io.StringIO()
    publisher.addObserver(mark_traced)
    publisher.addObserver(textFileLogObserver(written))
    return SimpleNamespace(log=Logger(observer=publisher), written=written.getvalue)


def test_log_lines_carry_the_request_that_they_come_from(logged: Any) -> None:
    trace = sent_by_a_peer()
    logged.log.info("before {what}", what="it")
    with handling(trace):
        logged.log.info("within {what}", what="it")
    logged.log.info("after {what}", what="it")
    lines = logged.written().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["before it", f"within it {label(trace)}", "after it"]


def test_log_lines_of_a_coroutine_carry_it_over_its_waits_and_no_others_do(logged: Any) -> None:
    tracer, trace = RecordingTracer(), sent_by_a_peer()
    wait: Deferred[None] = Deferred()

    async def work() -> None:
        logged.log.info("first")
        await wait
        logged.log.info("second")

    tracer.serve(lambda context, message: ensureDeferred(work()), received(trace), BEAT)
    logged.log.info("meanwhile")
    wait.callback(None)
    logged.log.info("afterwards")
    texts = [line.partition("] ")[2] for line in logged.written().splitlines()]
    assert texts == [f"first {label(trace)}", "meanwhile", f"second {label(trace)}", "afterwards"]
    assert len(tracer.spans) == 1


def test_failures_are_marked_and_twice_is_once(logged: Any) -> None:
    trace = sent_by_a_peer()
    events: list[dict[str, Any]] = []
    logged.log.observer.addObserver(lambda event: mark_traced(event))
    logged.log.observer.addObserver(events.append)
    with handling(trace):
        logged.log.failure("it broke", Failure(RuntimeError("why")))
    assert logged.written().count(label(trace)) == 1
    assert "RuntimeError: why" in logged.written()
    assert events[0]["log_format"].count("[trace") == 1
    assert events[0]["request_id"] == trace.request_id.hex()
    assert events[0]["trace_id"] == trace_id(trace).hex()


def test_it_marks_before_the_observers_that_are_begun_later_write() -> None:
    # As under twistd, which begins to log once the services are made.
    publisher, written = LogPublisher(), io.StringIO()
    beginner = LogBeginner(publisher, io.StringIO(), SimpleNamespace(stdout=sys.stdout, stderr=sys.stderr), warnings)
    publisher.addObserver(mark_traced)
    beginner.beginLoggingTo([textFileLogObserver(written)], redirectStandardIO=False)
    trace = sent_by_a_peer()
    with handling(trace):
        Logger(observer=publisher).info("line")
    assert f"line {label(trace)}" in written.getvalue()


# The console


def test_the_console_exporter_writes_one_line_a_span() -> None:
    trace = sent_by_a_peer()
    exporter = make_exporter(TracingSettings(export="console"), reactor=None, node_id=NODE_ID)
    assert exporter is not None
    written = io.StringIO()
    observer = textFileLogObserver(written)
    globalLogPublisher.addObserver(observer)
    try:
        exporter.export(Span("set", trace, 1_000_000, 3_500_000, {"hypercache.store": "default", "n": 1}, "OOM"))
        exporter.export(Span("get", trace, 1, 1, {}))
    finally:
        globalLogPublisher.removeObserver(observer)
    ids = f"trace={trace_id(trace).hex()} span={span_id(trace).hex()} parent={parent_span_id(trace).hex()}"
    texts = [line.partition("] ")[2] for line in written.getvalue().splitlines()]
    assert texts == [f"span set 2.500 ms {ids} hypercache.store=default n=1 error=OOM", f"span get 0.000 ms {ids}"]
    assert exporter.close().called


def test_off_exports_nothing() -> None:
    assert make_exporter(TracingSettings(), reactor=None, node_id=NODE_ID) is None
    tracer = Tracer(TracingSettings(), rng=random.Random(1), wall=lambda: 1.0, node_id=NODE_ID)
    assert tracer.serve(lambda context, message: "answer", received(sent_by_a_peer()), BEAT) == "answer"
    assert tracer.stop().called


def test_stopping_closes_the_exporter() -> None:
    tracer = RecordingTracer()
    assert tracer.stop().called
    assert tracer.recorder.closed
